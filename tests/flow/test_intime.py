"""What a shadow has not answered in time is passed over, also while a handler is at it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from mqinfer.flow.deadletter import kind_of
from mqinfer.flow.intime import InTime, TooLate
from mqinfer.flow.job import Interruption, Job
from tests.support.flow import Delivered

LATE = 60.0
NOW = 1_000.0  # seconds since the epoch
SOON = LATE - 0.05  # so old is what will be too late in a moment


class Handling:
    """Notes what it is given; holds it until it is cancelled, if it is to."""

    concurrency, batch_size, batch_wait, weigh, exhausted = 4, 2, 0.0, None, False

    def __init__(self, *, holds: bool = False) -> None:
        self.calls: list[list[int]] = []
        self.holds = holds
        self.closed = False

    async def run(self, jobs: Sequence[Job]) -> None:
        self.calls.append([job.delivery.sequence for job in jobs])
        if self.holds:
            await asyncio.Event().wait()

    def close(self) -> None:
        self.closed = True


class Stage:
    """A shadow's stage, where it is `NOW`, or the clock's time."""

    def __init__(self, *, holds: bool = False, alone: bool = True, clock: Any = lambda: NOW):
        self.handling = Handling(holds=holds)
        self.passed_over: dict[int, BaseException] = {}
        self.busy = False
        self.stood_back = 0
        self.roomy = asyncio.Event()
        self.roomy.set()
        settler: Any = SimpleNamespace(failed=self._failed)
        turn: Any = SimpleNamespace(live=self._live, room=self.roomy.wait)
        self.intime = InTime(
            self.handling,  # type: ignore[arg-type]
            settler,
            late=LATE,
            busy=lambda: self.busy,
            turn=turn,
            alone=alone,
            clock=clock,
        )

    def _failed(self, job: Job, error: BaseException) -> None:
        self.passed_over[job.delivery.sequence] = error

    def _live(self) -> None:
        self.stood_back += 1


def aged(sequence: int, seconds: float) -> Job:
    """A message that has been in the stream for so long."""
    return Job(Delivered(sequence, published=round((NOW - seconds) * 1e9)), 0.0, 0.0)


async def test_what_waited_for_too_long_is_passed_over_and_the_others_are_handled() -> None:
    stage = Stage()
    await stage.intime.run([aged(1, 0.0), aged(2, LATE), aged(3, 59.9), aged(4, 5_000.0)])
    assert stage.handling.calls == [[1, 3]]
    assert list(stage.passed_over) == [2, 4]
    error = stage.passed_over[2]
    assert isinstance(error, TooLate)
    assert (str(error), kind_of(error)) == ("too late", "rejected")  # not tried again


async def test_where_all_of_it_is_late_no_handler_is_called() -> None:
    stage = Stage()
    await stage.intime.run([aged(1, 61.0)])
    assert stage.handling.calls == []


async def test_it_is_asked_for_the_time_when_it_is_its_turn() -> None:
    now = NOW
    stage = Stage(clock=lambda: now)
    stage.busy = True
    stage.roomy.clear()
    task = asyncio.create_task(stage.intime.run([aged(1, 0.0)]))
    await asyncio.sleep(0)
    assert stage.stood_back == 1
    assert stage.handling.calls == []
    now += 61.0
    stage.roomy.set()
    await task
    assert list(stage.passed_over) == [1]


async def run_of(
    stage: Stage, *jobs: Job, interrupted: Interruption | None = None
) -> asyncio.Task[None]:
    """The handler at work on them, as a runner begins it."""
    task = asyncio.create_task(stage.intime.run(jobs))
    for job in jobs:
        job.begin(task, 0.0)
        job.interrupted = interrupted
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


async def test_a_handler_that_is_at_it_when_the_time_is_over_is_cancelled() -> None:
    stage = Stage(holds=True)
    job = aged(1, SOON)
    task = await run_of(stage, job)
    assert stage.handling.calls == [[1]]
    with pytest.raises(asyncio.CancelledError):
        await task
    assert job.interrupted is Interruption.LATE


async def test_what_it_was_interrupted_for_before_stays() -> None:
    stage = Stage(holds=True)
    job = aged(1, SOON)
    task = await run_of(stage, job, interrupted=Interruption.TIMEOUT)
    _, waiting = await asyncio.wait([task], timeout=0.3)
    assert waiting, "whoever interrupted it cancels it"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert job.interrupted is Interruption.TIMEOUT


@pytest.mark.parametrize(("alone", "count"), [(False, 1), (True, 2)])
async def test_a_thread_or_a_batch_is_not_cancelled(alone: bool, count: int) -> None:
    stage = Stage(holds=True, alone=alone)
    jobs = [aged(number, SOON) for number in range(count)]
    task = await run_of(stage, *jobs)
    _, waiting = await asyncio.wait([task], timeout=0.3)
    assert waiting
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [job.interrupted for job in jobs] == [None] * count


async def test_one_that_is_answered_in_time_is_not_cancelled_later() -> None:
    stage = Stage()
    job = aged(1, SOON)
    task = await run_of(stage, job)
    await task
    other = asyncio.create_task(asyncio.sleep(0.3))
    job.begin(other, 0.0)  # its task is at something else by now
    await other
    assert job.interrupted is None


def test_it_is_as_wide_as_what_it_wraps_and_closes_it() -> None:
    stage = Stage()
    assert (stage.intime.concurrency, stage.intime.batch_size) == (4, 2)
    assert not stage.intime.exhausted
    stage.intime.close()
    assert stage.handling.closed
