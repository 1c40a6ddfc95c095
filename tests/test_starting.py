"""Waiting for a server at the start: what is tried again, what is said, what ends it."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from mqinfer.errors import ConnectionClosed, PermissionDenied, Unavailable
from mqinfer.starting import Patience, unless
from mqinfer.testing import until


class Server:
    """Answers once it is up."""

    def __init__(self) -> None:
        self.up = False
        self.asked = 0

    async def ask(self) -> str:
        self.asked += 1
        if not self.up:
            raise Unavailable(f"no answer to question {self.asked}")
        return "answer"


async def test_a_wait_is_said_once_when_it_begins_and_once_when_it_ends() -> None:
    server, patience = Server(), Patience()
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(patience.answer(server.ask)) for _ in range(3)]
            await until(lambda: server.asked >= 9, "the third round")
            assert patience.reason is not None
            assert int(patience.reason.rpartition(" ")[2]) > 3  # the newest
            server.up = True
        assert [task.result() for task in asking] == ["answer"] * 3
    assert [entry["event"] for entry in logs] == ["waiting for NATS", "NATS answers"]
    assert logs[0]["reason"] == "no answer to question 1"
    assert patience.reason is None


async def test_what_answers_at_once_is_not_spoken_of() -> None:
    server = Server()
    server.up = True
    with capture_logs() as logs:
        assert await Patience().answer(server.ask) == "answer"
    assert logs == []


async def test_without_patience_the_first_failure_is_raised() -> None:
    server = Server()
    with pytest.raises(Unavailable, match="question 1"):
        await Patience(wait=False).answer(server.ask)


@pytest.mark.parametrize("error", [PermissionDenied("no"), ConnectionClosed("for good")])
async def test_what_waiting_cannot_mend_is_raised(error: Exception) -> None:
    async def ask() -> None:
        raise error

    with pytest.raises(type(error)):
        await Patience().answer(ask)


@pytest.mark.parametrize("answers", [False, True])
async def test_a_cancellation_that_was_swallowed_ends_the_wait(answers: bool) -> None:
    began = asyncio.Event()

    async def ask() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:  # as `asyncio.wait_for` does when both come at once
            if not answers:
                raise Unavailable("refused") from None

    patience = Patience()
    asking = asyncio.create_task(patience.answer(ask))
    await began.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert patience.reason is None


async def test_a_stop_cancels_what_is_inside_and_nothing_behind_it() -> None:
    stop, inside = asyncio.Event(), asyncio.Event()
    left = []

    async def work() -> str:
        async with unless(stop):
            inside.set()
            try:
                await asyncio.Event().wait()
            finally:
                left.append("inside")
        await asyncio.sleep(0)
        return "behind"

    working = asyncio.create_task(work())
    await inside.wait()
    stop.set()
    assert await working == "behind"
    assert left == ["inside"]
    assert working.cancelling() == 0


async def test_what_is_inside_may_end_by_itself_or_fail() -> None:
    stop = asyncio.Event()
    async with unless(stop):
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError, match="of its own"):
        async with unless(stop):
            raise TimeoutError("of its own")
    # Both at once: it has ended, and the stop finds nothing to cancel.
    async with unless(stop):
        stop.set()
    await asyncio.sleep(0)


@pytest.mark.parametrize("turns", range(6))
async def test_a_stop_and_an_end_may_come_in_any_turn_of_the_loop(turns: int) -> None:
    failed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
    stop = asyncio.Event()
    async with unless(stop):
        stop.set()
        for _ in range(turns):
            await asyncio.sleep(0)
    for _ in range(6):
        await asyncio.sleep(0)
    assert failed == []
