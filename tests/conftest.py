"""What several files share: real servers on random ports, in folders of their own, all ended."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import pytest_asyncio
import structlog

from mqinfer.collector import collect_less, tune_collector
from mqinfer.settings import Settings
from tests.support import forked, leftovers
from tests.support.accounts import Accounts, empty, hang_up
from tests.support.cli import cli_nats, served, shell, told, unlogged
from tests.support.clickhouse import clickhouse_server, db, url
from tests.support.triton import triton, why_no_triton

# Here, and not in the files that use them: a server for each file would live until the end.
__all__ = [
    "cli_nats",
    "clickhouse_server",
    "db",
    "served",
    "shell",
    "told",
    "triton",
    "unlogged",
    "url",
]


ROOT = Path(__file__).parents[1]

# An example may take as long as a busy machine needs for it.
hypothesis.settings.register_profile(
    "tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("tests")

# The files that take longest, by `--junitxml`: they begin first, so that none of them is the end.
LONGEST = (
    "shadow/test_models.py",
    "examples/test_plants_demo_replay.py",
    "cli/test_worker_start.py",
    "faults/test_faults.py",
    "faults/test_states.py",
    "benchmarks/test_benchmarks_more.py",
    "adapters/test_triton.py",
    "worker/test_renewals.py",
    "faults/test_poison.py",
    "examples/test_requests_page.py",
    "operate/test_models.py",
    "cli/test_scaling.py",
    "faults/test_replay.py",
    "examples/test_taskqueue.py",
    "flow/test_ordered.py",
    "inferenceserver/test_beside_triton.py",
    "bench/test_bench.py",
    "hosts/test_links.py",
    "faults/test_outages.py",
    "examples/test_mlwatch.py",
    "tables/test_values.py",
    "rowpacks/test_rows.py",
    "replay/test_promote.py",
    "examples/test_plants_demo.py",
    "tables/test_sink.py",
    "examples/test_plants_stages.py",
    "cli/test_replay.py",
    "joins/test_joins_kills.py",
    "test_typing.py",
    "console/test_runs.py",
    "cli/test_deploy.py",
    "gateway/test_processes.py",
    "timers/test_kills.py",
    "stack/test_beyond_fuzz.py",
    "cli/test_init.py",
    "adapters/test_blobs.py",
    "shadow/test_outages.py",
    "timers/test_cluster.py",
    "tables/test_bydays.py",
    "console/test_browser.py",
    "replay/test_replay.py",
    "flow/test_partitions.py",
    "stack/test_browser.py",
    "jobs/test_kills.py",
    "packed/test_served.py",
    "stack/test_clickhouse_clients.py",
    "faults/asking/test_asking.py",
    "adapters/test_tritonstream.py",
    "worker/test_known.py",
    "state/test_cluster.py",
    "docs/test_run.py",
    "requests/test_kills.py",
    "hosts/test_servers.py",
    "shadow/test_shadow.py",
    "monitor/test_counts.py",
    "console/test_labels.py",
    "gateway/test_refused.py",
    "test_security.py",
    "requests/test_cluster.py",
    "docs/test_site.py",
    "worker/test_worker.py",
    "state/test_states.py",
    "tables/test_sharded.py",
    "stack/test_up.py",
    "timers/test_later.py",
)


def pytest_configure() -> None:
    """Whatever started the suite: processes that the tests start end by Ctrl-C."""
    # A shell lets what it runs in the background ignore it, and so would all that this starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # To import all tests makes a million objects that stay.
    collect_less()


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Share the work of processes that all have to import all tests: each begins with another part.

    pytest rewrites the asserts of a file when it is imported for the first time, and keeps what it
    made, which others then find: half of the ten seconds that each of them takes on a fresh tree.
    """
    if (name := os.environ.get("PYTEST_XDIST_WORKER")) is None:
        return
    sys.dont_write_bytecode = False
    folders = [session.config.invocation_params.dir / arg for arg in session.config.args]
    files = sorted(file for folder in folders for file in folder.rglob("test_*.py"))
    number, count = int(name.removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    first = len(files) * number // count
    for file in files[first:] + files[:first]:
        # What is wrong with it is told when it is collected.
        with contextlib.suppress(Exception, pytest.skip.Exception):
            importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what cannot run; begin with the longest files where processes share the tests."""
    if (reason := why_no_triton()) is not None:
        for item in items:
            if item.get_closest_marker("triton"):
                item.add_marker(pytest.mark.skip(reason=reason))
    if config.pluginmanager.hasplugin("pytest_cov"):
        for item in items:
            if item.get_closest_marker("hypothesis"):  # the same lines, hundreds of times
                item.add_marker("no_cover")
    if not hasattr(config, "workerinput"):
        return
    folder = Path(__file__).parent
    rank = {folder / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


def pytest_collection_finish() -> None:
    """What was imported is not looked through for cycles again and again: a million objects."""
    tune_collector()


@pytest.fixture(scope="session", autouse=True)
def loggers_are_free() -> None:
    """A module's logger that was bound for good would pass by whoever captures logs later."""
    configure = structlog.configure

    def uncached(**options: Any) -> None:
        configure(**{**options, "cache_logger_on_first_use": False})

    structlog.configure = uncached


@pytest.fixture(autouse=True)
def logging_is_as_it_was() -> Iterator[None]:
    """What a test, or a command that it runs, makes of logging ends with it."""
    yield
    if structlog.is_configured():
        structlog.reset_defaults()


@pytest.fixture(scope="session", autouse=True)
def own_priority() -> Iterator[None]:
    """Commands of a replay that run in this process must not lower the priority of all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "setpriority", lambda *_: None, raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """The last test fails if a process that any test started has outlived them all."""
    mark = leftovers.mark()
    yield
    left = leftovers.end(mark, patience=30)
    assert not left, "still alive after all tests, and killed now:\n" + "\n".join(left)


@pytest.fixture(scope="session", autouse=True)
def commands_are_forked(nothing_is_left: None) -> Iterator[None]:
    """What starts `python -m mqinfer` gets a process that has imported it; see `executed`."""
    with forked.commands():
        yield


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of the start itself: a process begins with Python's own."""
    monkeypatch.setattr(subprocess, "Popen", forked.EXECUTED)


@pytest.fixture(scope="session")
def accounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accounts]:
    """Accounts of NATS, each for one test."""
    made = Accounts(tmp_path_factory.mktemp("accounts"))
    yield made
    asyncio.run(made.close())


@pytest_asyncio.fixture
async def nats(accounts: Accounts, tmp_path: Path) -> AsyncIterator[Settings]:
    """Settings of a NATS that this test has for itself: an account of a server."""
    url, blobs = await accounts.take(), tmp_path / "stack" / "blobs"
    blobs.mkdir(parents=True)
    yield Settings.load({}, nats_url=url, blobs=str(blobs), grace=5.0)
    await hang_up(url)
    await empty(url)
