"""Handlers that do not end: a stop ends all the same, and names where they are."""

from __future__ import annotations

import asyncio
import contextlib
import linecache

import pytest
from structlog.testing import capture_logs

from mqinfer.flow import handlers
from mqinfer.flow.frames import waiting_frame
from tests.support.flow import Double, Flow, Number, turns


async def swallow(release: asyncio.Event) -> None:
    while not release.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await release.wait()


async def test_a_handler_that_swallows_every_cancellation_is_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handlers, "CLEANING_UP", 0.2)
    release, ended = asyncio.Event(), asyncio.Event()

    async def stubborn(number: Number) -> Double:
        if number.value == 1:
            await swallow(release)
            ended.set()
        return Double(number.value)

    flow = Flow(stubborn)
    with capture_logs() as logs:
        async with flow.running():
            flow.deliver(1)
            flow.deliver(2)
            await turns()
    assert flow.broker.heard() == [("nak", 1), ("nak", 2)]  # of the second the output is not stored
    assert flow.broker.subjects() == ["t.double"]
    (line,) = (line for line in logs if "does not end" in line["event"])
    assert (line["stage"], line["ids"]) == ("s", ["t:1"])
    assert line["file"] == __file__
    assert flow.runner.hanging == [f"stage s at {__file__}:{line['line']}"]
    assert linecache.getline(__file__, line["line"]).strip() == "await release.wait()"
    # It is not heard any more.
    release.set()
    async with asyncio.timeout(120):
        await ended.wait()
    await turns()
    assert flow.broker.subjects() == ["t.double"]
    assert len(flow.broker.heard()) == 2


async def test_where_a_task_waits_is_the_innermost_line_of_the_users() -> None:
    async def inner() -> None:
        async with asyncio.timeout(3600):
            await asyncio.Event().wait()

    async def outer() -> None:
        await inner()

    task = asyncio.create_task(outer())
    await turns()
    frame = waiting_frame(task)
    assert frame is not None
    assert (frame.f_code.co_filename, frame.f_code.co_name) == (__file__, "inner")
    task.cancel()
    await asyncio.wait({task})
    assert waiting_frame(task) is None
