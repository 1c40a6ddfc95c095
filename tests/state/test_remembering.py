"""What stands between a message and its handler where the stage remembers, without a server."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from mqinfer.errors import StateChanged, StateError
from mqinfer.flow.job import SETTLED, WAITING
from mqinfer.state.remembering import Remembering


class Told:
    """A handling, a settler and the states of a stage, which write down what they are asked."""

    concurrency, batch_size, batch_wait, weigh = 3, 5, 0.5, None
    exhausted = False

    def __init__(self) -> None:
        self.handled: list[list[int]] = []
        self.failures: list[tuple[int, BaseException]] = []
        self.again: list[int] = []
        self.closed = 0
        self.opens: dict[int, Any] = {}
        self.gate: asyncio.Event | None = None
        self.here: dict[int, Any] = {}

    async def run(self, jobs: Any) -> None:
        self.handled.append([job.number for job in jobs])

    def failed(self, job: Any, error: BaseException) -> None:
        self.failures.append((job.number, error))

    def repeated(self, job: Any) -> None:
        self.again.append(job.number)

    async def open(self, job: Any) -> Any:
        if self.gate is not None:
            await self.gate.wait()
        found = self.opens.get(job.number, a_memory(f"k{job.number}"))
        if isinstance(found, BaseException):
            raise found
        return found

    def at_hand(self, job: Any) -> Any:
        found = self.here.get(job.number)
        if isinstance(found, BaseException):
            raise found
        return found

    def close(self) -> None:
        self.closed += 1


def a_memory(key: str) -> Any:
    return SimpleNamespace(key=key)


class Paused:
    """A context that counts how often its clock stands still."""

    def __init__(self) -> None:
        self.pauses = self.resumes = 0

    def pause(self, now: float) -> None:
        self.pauses += 1

    def resume(self, now: float) -> None:
        self.resumes += 1


def jobs(*numbers: int) -> list[Any]:
    return [
        SimpleNamespace(number=number, state=WAITING, memory=None, context=Paused())
        for number in numbers
    ]


def remembering() -> tuple[Any, Told]:
    told = Told()
    stub: Any = told
    return Remembering(stub, stub, stub), told


async def test_each_message_gets_its_state_or_what_becomes_of_it() -> None:
    handling, told = remembering()
    assert (handling.concurrency, handling.batch_size, handling.batch_wait) == (3, 5, 0.5)
    told.opens = {2: None, 3: StateError("unreadable")}
    batch = jobs(1, 2, 3, 4)
    await handling.run(batch)
    assert told.handled == [[1, 4]]
    assert told.again == [2]
    ((number, error),) = told.failures
    assert number == 3
    assert isinstance(error, StateError)
    assert [job.memory is not None for job in batch] == [True, False, False, True]
    assert all((job.context.pauses, job.context.resumes) == (1, 1) for job in batch)
    for number in (2, 3):
        await handling.run(jobs(number))
    assert told.handled == [[1, 4]]  # nothing was left to handle
    handling.close()
    assert told.closed == 2  # the handling, and the states


async def test_one_behind_another_of_its_key_is_given_back() -> None:
    handling, told = remembering()
    told.opens = dict.fromkeys((1, 3), a_memory("k"))
    await handling.run(jobs(1, 2, 3))
    assert told.handled == [[1, 2]]
    ((number, error),) = told.failures
    assert number == 3
    assert isinstance(error, StateChanged)  # which spends no attempt


async def test_what_was_let_go_while_its_state_was_read_is_not_handled() -> None:
    handling, told = remembering()
    told.gate = asyncio.Event()
    (job,) = jobs(1)
    running = asyncio.create_task(handling.run([job]))
    await asyncio.sleep(0)
    job.state = SETTLED
    told.gate.set()
    await running
    assert told.handled == []
    assert told.again == []
    assert told.failures == []


async def test_what_is_here_is_not_asked_for() -> None:
    handling, told = remembering()
    told.gate = asyncio.Event()  # nothing is read
    told.here = {1: a_memory("k"), 2: a_memory("l")}
    for number in (1, 2):
        (job,) = jobs(number)
        await handling.run([job])
        assert job.memory is told.here[number]
        assert job.context.pauses == 0
    assert told.handled == [[1], [2]]
    told.gate.set()
    told.here = {3: StateChanged("the one before is at work")}
    await handling.run(jobs(3))
    assert told.handled == [[1], [2]]
    assert [number for number, _ in told.failures] == [3]


async def test_one_that_began_behind_another_goes_with_it() -> None:
    """With the state of the bucket its outputs would be as if the one before had not been."""
    handling, told = remembering()
    told.here = {number: a_memory("k") for number in (1, 2)}

    def behind(number: int, *, void: bool) -> Any:
        (job,) = jobs(number)
        # Its partition has no owner for now: somebody else may have messages of it.
        job.delivery = SimpleNamespace(partition=SimpleNamespace(tenure=None))
        job.memory = SimpleNamespace(key="k", void=void)
        return job

    job = behind(1, void=False)
    memory = job.memory
    await handling.run([job])
    assert told.handled == [[1]]
    assert job.memory is memory
    await handling.run([behind(2, void=True)])
    assert told.handled == [[1]]
    ((number, error),) = told.failures
    assert (number, type(error)) == (2, StateChanged)
