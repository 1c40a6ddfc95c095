"""A blocked event loop: who blocks it is named while it lasts, and health is answered."""

from __future__ import annotations

import asyncio
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError

import pytest
from structlog.testing import capture_logs

from mqinfer import App, Message, Settings, Worker
from mqinfer.flow.beat import EVERY as BEAT
from mqinfer.flow.beat import Beat
from mqinfer.http import serve_http
from mqinfer.observe import Metrics
from mqinfer.testing import Harness, until
from mqinfer.worker.watchdog import LATE, PATIENCE, Culprit, Watchdog

LONG = 60.0  # seconds; only a test that fails waits so long


class Number(Message, subject="number"):
    value: int


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=LONG) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def wait_for(condition: Callable[[], Any]) -> Any:
    """In a thread, for the loop is blocked."""
    end = time.monotonic() + LONG
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


async def handle(number: Number, release: threading.Event) -> None:
    release.wait(LONG)


async def in_a_task_of_its_own(number: Number, release: threading.Event) -> None:
    await asyncio.create_task(handle(number, release))


@pytest.mark.parametrize("how", [handle, in_a_task_of_its_own])
async def test_who_blocks_is_named_and_health_is_answered(nats: Settings, how: Any) -> None:
    app, release, said = App("blocks"), threading.Event(), {}

    @app.stage
    async def culprit(number: Number) -> None:
        await how(number, release)

    @app.stage
    async def innocent(number: Number) -> None: ...

    def look(worker: Worker, url: str) -> None:
        try:
            assert worker.engine is not None
            dog = worker.engine.watchdog
            # A busy machine may hold up other tasks for so long, too.
            said["who"] = wait_for(
                lambda: dog.culprit and dog.culprit.file == __file__ and dog.culprit
            )
            for name in ("healthz", "readyz", "metrics"):
                said[name] = get(f"{url}/{name}")
        finally:
            release.set()

    with capture_logs() as logs:
        async with (
            Harness(app, nats) as harness,
            harness.worker() as worker,
            served(worker) as url,
        ):
            looking = asyncio.create_task(asyncio.to_thread(look, worker, url))
            await harness.publish(Number(1), ids=["one"])
            await looking
            engine = worker.engine
            assert engine is not None
            await until(lambda: engine.watchdog.culprit is None, "the end of the block")
            after = await asyncio.to_thread(get, f"{url}/metrics")
            await until(lambda: not worker.not_ready(), "a ready worker")
    who = said["who"]
    assert (who.stage, who.file, who.function) == ("culprit", __file__, "handle")
    assert who.id == ("one" if how is handle else "")
    assert said["healthz"] == (200, "alive\n")
    assert said["readyz"][0] == 503
    assert f"s by stage culprit at {__file__}:{who.line} (handle)" in said["readyz"][1]
    assert said["metrics"][0] == 200
    assert 'loop_blocked_seconds_count{app="blocks",stage="culprit"}' in after[1]
    during, end = (line for line in logs if line.get("file") == __file__)
    assert during["event"] == "the event loop is blocked"
    assert during["code"] == "release.wait(LONG)"
    assert end["event"] == "the event loop was blocked"
    assert end["seconds"] >= LATE - 0.1


@asynccontextmanager
async def served(worker: Worker) -> AsyncIterator[str]:
    port = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve_http(
            0,
            live=worker.stuck,
            ready=worker.not_ready,
            metrics=lambda: bytes(worker.services.metrics.render()),
            started=port.set_result,
        )
    )
    try:
        yield f"http://127.0.0.1:{await port}"
    finally:
        serving.cancel()
        await asyncio.wait({serving})


# --- without a thread ---------------------------------------------------------------------------


class Look:
    """A watchdog that the test lets look, on a clock of the test's."""

    def __init__(self, **runner: Any) -> None:
        self.now = 100.0
        runners = [SimpleNamespace(name="s", jobs={}, **runner)] if runner else []
        runners_: Any = runners
        self.beat = Beat(clock=lambda: self.now)
        self.beat.last = self.now
        self.dog = Watchdog(
            lambda: runners_, ["s"], Metrics("t"), self.beat, clock=lambda: self.now
        )
        self.dog._thread = threading.get_ident()
        self.dog._loop = asyncio.get_running_loop()

    def look(self, seconds: float) -> Culprit | None:
        self.now += seconds
        self.dog.look()
        return self.dog.culprit


async def test_a_loop_that_gives_signs_of_life_is_left_alone() -> None:
    one = Look()
    for _ in range(20):
        one.beat.last = one.now
        assert one.look(BEAT) is None


async def test_a_process_that_stood_still_is_not_blamed_on_who_ran() -> None:
    one = Look()
    assert one.look(5.0) is None  # the watchdog itself did not run
    one.beat.last = one.now
    assert one.look(BEAT) is None


async def test_it_is_said_within_a_second_and_stuck_after_the_timeout() -> None:
    one = Look(timeout=5.0)
    with capture_logs() as logs:
        while one.look(BEAT) is None:
            assert one.beat.missing() < 1.0
        assert one.dog.culprit is not None
        assert (one.dog.culprit.file, one.dog.culprit.function) == (__file__, "look")
        one.dog.culprit = Culprit("s", "", "f.py", 1, "handler")
        one.look(1.0)
        assert one.dog.blocked == (
            f"the event loop has been blocked for {one.beat.missing():.1f} s "
            "by stage s at f.py:1 (handler)"
        )
        assert one.dog.stuck is None
        one.look(4.0)
        assert one.dog.stuck == one.dog.blocked
        one.beat.last = one.now
        assert one.look(BEAT) is None
    assert [line["event"] for line in logs] == [
        "the event loop is blocked",
        "the event loop was blocked",
    ]
    assert one.dog.blocked is one.dog.stuck is None


@pytest.mark.parametrize("timeout", [float("inf"), None])
async def test_what_has_no_timeout_is_stuck_after_a_minute(timeout: float | None) -> None:
    one = Look() if timeout is None else Look(timeout=timeout)
    while one.look(BEAT) is None:
        pass
    one.look(PATIENCE - 2)
    assert one.dog.stuck is None
    one.look(2)
    assert one.dog.stuck is not None
