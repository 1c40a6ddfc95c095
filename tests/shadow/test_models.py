"""Shadows and canaries from the command line, on real servers, through kills of the workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mqinfer.choice import chosen
from mqinfer.errors import TableError
from mqinfer.stack.triton import TritonServer as Triton
from tests.support.cli import Shell, until
from tests.support.clickhouse import ask
from tests.support.models import save_table

SHARE = 0.5
FACTORS = {"1": 1.0, "2": 10.0, "3": 100.0}  # by version

APP = """
from __future__ import annotations
import os
import signal
from pathlib import Path
from typing import Annotated
import numpy as np
from mqinfer import App, Backoff, Context, Label, Message, Row

app = App("{name}")
model = app.model("both", alias="live", version=1)

class Ask(Message, subject="ask"):
    index: int

class Told(Row, table="told_{name}", order_by=("index",)):
    index: int
    value: float
    label: Annotated[str, Label()]

@app.stage(ack_wait="5s", attempts=100, backoff=Backoff(initial=0.2, maximum=1.0))
async def ask(question: Ask, ctx: Context) -> Told:
    dies = os.environ.get("DIES_AT", "").split() if ctx.attempt == 1 else ()
    if f"before={question.index}" in dies:
        os.kill(os.getpid(), signal.SIGKILL)
    found = await model(index=np.array([question.index % 40], np.int64))
    value = float(found["value"][0])
    with Path("tries").open("a") as file:
        file.write(f"{ctx.id} {found.version}\\n")
    if f"after={question.index}" in dies:
        os.kill(os.getpid(), signal.SIGKILL)
    return Told(question.index, value, "odd" if question.index % 2 else "even")
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository") / "models"
    root.mkdir()
    for version, factor in FACTORS.items():
        # The third fails requests for half of what is asked.
        save_table(root, version, factor, "both", entries=20 if version == "3" else 100)
    return root


@pytest.fixture
def shell(served: Shell, triton: Triton, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("MQINFER_TRITON_URL", triton.url)
    served.write(APP, module=served.name)
    return served


def publish(shell: Shell, first: int, last: int) -> None:
    lines = (json.dumps({"index": n}) + "\n" for n in range(first, last))
    Path("asks.jsonl").write_text("".join(lines))
    code, _, err = shell.run("publish", shell.app, "ask", "asks.jsonl")
    assert code == 0, err


def query(sql: str) -> list[dict[str, Any]]:
    """What ClickHouse says; nothing while there is no such table."""
    try:
        return ask(os.environ["MQINFER_CLICKHOUSE_URL"], sql)
    except TableError:
        return []


def rows(shell: Shell, run: str = "") -> dict[int, tuple[str, str]]:
    """Index -> the message's id and the version that answered; each index once."""
    found = query(
        f"SELECT index, _ancestors[1] AS root, _models['both'] AS version, value "
        f"FROM told_{shell.name}__storage FINAL WHERE _run = '{run}'"
    )
    for row in found:
        assert row["value"] == row["index"] % 40 * FACTORS[row["version"]]
    assert len({row["index"] for row in found}) == len(found)
    return {row["index"]: (row["root"], row["version"]) for row in found}


def records(shell: Shell, run: str) -> dict[str, str]:
    found = query(
        "SELECT input, skipped FROM mqinfer_run_inputs__storage FINAL "
        f"WHERE app = '{shell.name}' AND run = '{run}'"
    )
    assert len({row["input"] for row in found}) == len(found)
    return {row["input"]: row["skipped"] for row in found}


def worker(shell: Shell, **environ: str) -> subprocess.Popen[str]:
    """One whose log goes to a file: nobody reads on while it is killed."""
    return shell.start("worker", shell.app, log=f"worker{len(shell.running)}.log", **environ)


def test_a_shadow_is_exact_through_kills(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    working = [worker(shell), worker(shell)]
    publish(shell, 0, 50)
    until(lambda: len(rows(shell)) == 50)
    arguments = ["--shadow", "both=2", "--share", "0.5", "--run", "s1", "--late", "1h"]
    begun = shell.json("models", shell.app, *arguments)
    assert (begun["run"], begun["stage"], begun["goes_on"]) == ("s1", "ask", True)
    until(lambda: '"run": "s1"' in Path("worker0.log").read_text())
    for number in range(3):
        publish(shell, 50 + 100 * number, 150 + 100 * number)
        # Some are on their way, of both; whoever follows works on the shadow by itself.
        working[number % 2].kill()
        working[number % 2] = worker(shell)
    until(lambda: len(rows(shell)) == 350)
    live = rows(shell)
    assert {version for _, version in live.values()} == {"1"}
    share = {root for n, (root, _) in live.items() if n >= 50 and chosen(root, SHARE)}
    until(lambda: len(records(shell, "s1")) >= len(share))
    found = records(shell, "s1")
    assert found.keys() == share
    assert set(found.values()) == {""}
    until(lambda: len(rows(shell, "s1")) >= len(share))
    beside = rows(shell, "s1").values()
    assert {version for _, version in beside} == {"2"}
    assert sorted(root for root, _ in beside) == sorted(share)

    (told,) = shell.json("models", shell.app)["shadows"]
    assert (told["run"], told["share"], told["answered"]) == ("s1", 0.5, len(share))
    assert told["skipped"] == 0
    ((table,)) = told["tables"]
    assert table["matched"] == len(beside)
    _, out, _ = shell.run("models", shell.app)
    assert f"both 2 0.5 of ask s1 {len(share)} 0 " in " ".join(out.split())

    # A tracker that is away changes nothing, and is told.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    tracked = "MLflow at http://127.0.0.1:1 has not taken it"
    if find_spec("mlflow") is None:
        tracked = "mlflow is not installed: pip install 'mqinfer[mlflow]'"
    code, out, err = shell.run("models", shell.app, "--no-shadow", "both")
    assert code == 0, err
    assert "when what is left is answered: run s1" in out
    assert tracked in err
    until(lambda: shell.json("runs", "show", shell.app, "s1")["state"] == "done")
    assert shell.json("models", shell.app)["shadows"] == []
    code, _, err = shell.run("runs", "compare", shell.app, "s1")
    assert code == 0
    assert tracked in err
    assert shell.run("runs", "discard", shell.app, "s1")[0] == 0
    assert not rows(shell, "s1")
    assert len(rows(shell)) == 350
    for process in working:
        process.send_signal(signal.SIGTERM)
    for process in working:
        process.communicate(timeout=120)
        assert process.returncode == 0


def test_a_shadow_that_is_not_served_holds_up_nothing(shell: Shell) -> None:
    """As while its Triton is away: what it would have answered is passed over, and told."""
    working = worker(shell)
    publish(shell, 0, 1)
    until(lambda: len(rows(shell)) == 1)
    arguments = ["--shadow", "both=9", "--share", "1", "--run", "s9", "--late", "2s"]
    code, out, err = shell.run("models", shell.app, *arguments)
    assert (code, out) == (2, "")
    assert "does not serve version 9 of both; it serves: 1, 2, 3" in err
    shell.json("models", shell.app, *arguments, "--force")
    publish(shell, 1, 31)
    until(lambda: len(rows(shell)) == 31)
    until(lambda: len(records(shell, "s9")) >= 30)
    assert set(records(shell, "s9").values()) == {"too late"}
    assert not rows(shell, "s9")
    _, out, _ = shell.run("models", shell.app)
    assert "note: s9 passed over 30: too late" in out
    assert shell.run("models", shell.app, "--no-shadow", "both")[0] == 0
    until(lambda: shell.json("runs", "show", shell.app, "s9")["state"] == "done")
    working.send_signal(signal.SIGTERM)
    working.communicate(timeout=120)
    assert working.returncode == 0


def test_a_canary_has_its_share_and_is_promoted(shell: Shell) -> None:
    working = worker(shell)
    code, _, err = shell.run("models", shell.app, "--canary", "both=2")
    assert code == 2
    assert "both@live is not set: mqinfer models APP --set both@live=VERSION" in err
    shell.json("models", shell.app, "--set", "both@live=1")
    code, out, err = shell.run("models", shell.app, "--canary", "both=2", "--share", "0.5")
    assert code == 0, err
    assert "both@live: 1, and 2 for 0.5 of the traffic" in out
    assert "note: neither version has a reference: it goes back by itself only where" in out
    asked = 0

    def noticed() -> bool:
        nonlocal asked
        publish(shell, asked, asked := asked + 5)
        until(lambda: len(rows(shell)) == asked)
        return any(version == "2" for _, version in rows(shell).values())

    until(noticed)
    before = asked
    publish(shell, asked, asked + 60)
    until(lambda: len(rows(shell)) == before + 60)
    for n, (root, version) in rows(shell).items():
        if n >= before:
            assert version == ("2" if chosen(root, 0.5) else "1")
    facts = shell.json("models", shell.app)
    ((canary,)) = facts["canaries"]
    assert (canary["version"], canary["share"], canary["back"]) == ("2", 0.5, "")
    _, out, _ = shell.run("models", shell.app)
    assert "canary: version 2 has 0.5 of both@live since" in out
    code, out, _ = shell.run("models", shell.app, "--promote", "both")
    assert (code, out) == (0, "both@live: 2\n")
    assert shell.json("models", shell.app)["canaries"] == []
    working.send_signal(signal.SIGTERM)
    working.communicate(timeout=120)
    assert working.returncode == 0


def test_a_canary_is_exact_through_kills(shell: Shell) -> None:
    """Each message is answered once, by the version that its id says, however often it is tried."""
    shell.json("models", shell.app, "--set", "both@live=1")
    shell.json("models", shell.app, "--canary", "both=2", "--share", "0.5")
    # Whoever has these messages first dies, before it asks or with the answer in hand.
    dies = {"DIES_AT": "before=20 after=120"}
    working = [worker(shell, **dies), worker(shell, **dies)]

    def kept_up(condition: Callable[[], object]) -> bool:
        """The condition, while who has died is followed by another."""
        for place, process in enumerate(working):
            if process.poll() is not None:
                assert process.returncode == -signal.SIGKILL
                working[place] = worker(shell, **dies)
        return bool(condition())

    for last in (100, 200):
        publish(shell, last - 100, last)
        until(lambda last=last: kept_up(lambda: len(rows(shell)) == last))
    assert len(shell.running) == 2 + 2
    found = rows(shell)
    for root, version in found.values():
        assert version == ("2" if chosen(root, SHARE) else "1")
    tries = [line.split() for line in Path("tries").read_text().splitlines()]
    assert len(tries) > len(found)  # redelivered with an answer in hand
    assert {(root, version) for root, version in tries} == set(found.values())

    # A version that fails goes back by itself, although whoever counts is killed again and again;
    # what it has failed on is answered by the other one then.
    shell.json("models", shell.app, "--canary", "both=3", "--share", "0.5")
    asked = 200

    def gone() -> bool:
        nonlocal asked
        before = asked
        working[before // 120 % 2].kill()
        working[before // 120 % 2].wait()
        publish(shell, before, asked := before + 120)
        until(lambda: kept_up(lambda: sum(n >= before for n in rows(shell)) >= 60))
        return "version" not in shell.json("models", shell.app)["canaries"][0]

    until(lambda: kept_up(gone))
    ((canary,)) = shell.json("models", shell.app)["canaries"]
    assert canary["back"].startswith("stage ask fails for ")
    until(lambda: kept_up(lambda: len(rows(shell)) == asked))
    after = {n: pair for n, pair in rows(shell).items() if n >= 200}
    for n, (root, version) in after.items():
        assert version in ({"1", "2", "3"} if chosen(root, SHARE) else {"1"})
        assert version != "3" or n % 40 < 20
    assert shell.json("dead", "list", shell.app)["letters"] == []
    for process in working:
        process.send_signal(signal.SIGTERM)
    for process in working:
        process.communicate(timeout=120)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--shadow", "both"], "--shadow takes MODEL=VERSION, such as grade_rust=2, not 'both'"),
        (["--shadow", "both=7"], "does not serve version 7 of both; it serves: 1, 2, 3"),
        (["--shadow", "both=2", "--share", "2"], "a share is more than 0 and at most 1, not 2"),
        (["--shadow", "both=2", "--stage", "no"], "has no stage no"),
        (["--no-shadow", "both"], "model both has no shadow"),
        (["--canary", "both@next=2"], "followed are: both@live"),
        (["--no-canary", "both"], "both@live"),
        (["--shadow", "both=2", "--promote", "both"], "one at a time: --shadow and --promote"),
        (["--shadow", "both=2", "--set", "both@live=2"], "--shadow goes without --set"),
        (["--share", "0.5"], "--share, --stage, --run and --late go with --shadow"),
    ],
)
def test_mistakes_are_one_line(shell: Shell, arguments: list[str], says: str) -> None:
    publish(shell, 0, 1)
    code, out, err = shell.run("models", shell.app, *arguments)
    assert (code, out) == (2, ""), err
    assert says in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
