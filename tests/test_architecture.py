"""The tree's own rules: which way imports run, what importing costs, how large a module may be."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests import rooms

# Who may import whom: a room or module imports from its own line and from those above it.
LAYERS = (
    "errors domain identity birth times split backoff hints opened referred context later message "
    "row column marker statetype completion join endpoint joinwiring declared blob dropped "
    "blobfields readable beside codec masking index written model signature stage collisions app "
    "clocked cron around hooks lifespan schedule tick settingkinds settings observe metrics choice "
    "image imageheader jpeg counts connecting publishable seldom collector http "
    "bucket core hits streams specs ports signals starting headers origin processors varint "
    "supervise oldnames",
    "rowpacks",
    "flow",
    "tracing",
    "inference tables timers joins requests jobs monitor",
    "plan task",
    "state search",
    "worker",
    "replay operate shadow",
    "adapters",
    "wiring",
    "client clienttimers clientstates clientrequests clientjobs clientsearch running",
    "fakemodels dedup",
    "web",
    "gateway console deploy",
    "testing stack packed catalog bench cli __main__ mqinfer templates",
)
RANK = {name: rank for rank, line in enumerate(LAYERS) for name in line.split()}
# The one file, or folder, that may import each client of a server; a server of the same protocol
# has its messages from there.
OWNERS = {
    "nats": "adapters/natspy.py",
    "tritonclient": ("adapters/triton", "stack/inferenceserver/"),
    "clickhouse_connect": "adapters/clickhouse.py",
    "obstore": "adapters/blobstores/cloud.py",
    "chdb": "stack/",
    "opentelemetry": "adapters/otel.py",
    "mlflow": ("adapters/mlflow.py", "packed/"),
}
HEAVY = (
    *("mqinfer.app", "msgspec", "asyncio"),
    *("nats", "tritonclient", "clickhouse_connect", "cv2", "chdb", "numpy", "uvicorn"),
    *("opentelemetry", "mlflow"),
)


@pytest.mark.parametrize("client", OWNERS)
def test_one_place_imports_each_client(client: str) -> None:
    users = [
        str(path.relative_to(rooms.PACKAGE))
        for path in rooms.modules().values()
        if any(name.split(".")[0] == client for name in rooms.imported(path))
    ]
    assert users
    assert all(user.startswith(OWNERS[client]) for user in users), users


def test_there_is_no_circle_of_imports() -> None:
    assert rooms.circle(rooms.graph()) == []


def test_imports_run_downwards() -> None:
    upwards = [
        f"{module} -> {other}"
        for module, others in rooms.graph().items()
        for other in others
        if RANK[rooms.room_of(other)] > RANK[rooms.room_of(module)]
    ]
    assert not upwards


def test_each_room_says_its_job() -> None:
    for path in rooms.PACKAGE.glob("*/__init__.py"):
        assert path.read_text().startswith('"""'), path


def test_importing_mqinfer_loads_nothing_heavy() -> None:
    code = f"import sys, mqinfer; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_a_worker_without_models_or_tables_loads_no_numpy() -> None:
    code = "import sys, mqinfer.cli.worker, mqinfer.worker.worker; print('numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"


def test_a_command_that_draws_nothing_loads_no_rich() -> None:
    code = "import sys; from mqinfer.cli import main; main(); print('rich' in sys.modules)"
    arguments = ("worker", "tests.support.timers_app:app", "--no-wait")
    environ = {**os.environ, "MQINFER_NATS_URL": "127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=environ,
    )
    assert done.stdout.strip() == "False"


def test_modules_stay_small() -> None:
    files = [*rooms.modules().values(), *(rooms.ROOT / "stages").rglob("*.py")]
    long = {
        str(path.relative_to(rooms.ROOT)): lines
        for path in files
        if (lines := len(path.read_text().splitlines())) > 450
    }
    assert not long
