"""When the settler writes a state, and what becomes of the message then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from mqinfer.errors import PublishError, StateChanged
from mqinfer.message import Message
from tests.support.flow import Double, Flow, Number, Owned, turns


class Kept:
    """A state whose write ends when the test says so."""

    key = "k"

    def __init__(self) -> None:
        self.then: Callable[[Exception | None], None] | None = None
        self.left = 0

    def begin(self) -> object:
        return self

    def seal(self) -> None:
        """Nothing keeps it from being written."""

    def keep(self, then: Callable[[Exception | None], None]) -> None:
        assert self.then is None
        self.then = then

    def drop(self, error: Exception, then: Callable[[Exception | None], None]) -> None:
        then(error)

    def leave(self) -> None:
        self.left += 1

    def end(self, error: Exception | None = None) -> None:
        assert self.then is not None
        self.then(error)


class Timers:
    """Sets one timer, which is stored when the test says so."""

    def __init__(self) -> None:
        self.wishes = ["a timer"]
        self.done: Callable[[Exception | None, bool], None] | None = None

    def take(self, _job: object) -> list[str]:
        wishes, self.wishes = self.wishes, []
        return wishes

    def set(self, _job: object, wishes: list[str], done: Any) -> None:
        assert wishes == ["a timer"]
        self.done = done


class Records:
    """A recorder whose record is one message, which leaves at once."""

    largest = 1000
    bulk_kinds: ClassVar[frozenset[type[Message]]] = frozenset()

    def header(self, _job: object) -> str:
        return ""

    def note(self, job: Any, outputs: list[Any], first: int) -> None:
        job.noted = [*(job.noted or ()), *enumerate(outputs, first)]

    def ended(self, job: Any, outcome: str, _error: object) -> list[tuple[str, bytes]]:
        return [("root", f"{outcome} {len(job.noted or ())}".encode())]

    def encoded(self, record: bytes) -> list[bytes]:
        return [record]

    def soon(self, call: Callable[[], None]) -> None:
        call()

    def message(self, _root: str, records: list[bytes]) -> tuple[bytes, bytes, bytes]:
        return (b"settled.t", b"", b"".join(records))


@pytest.fixture
def owned() -> Owned:
    return Owned()


@pytest.fixture
async def flow(owned: Owned) -> Flow:
    async def double(number: Number) -> Double:
        return Double(2 * number.value)

    return Flow(double, policy=owned)


def remembered(flow: Flow, **fields: Any) -> tuple[Any, Kept]:
    job, kept = flow.job(**fields), Kept()
    job.memory = kept
    flow.runner.jobs[job.delivery.sequence] = job
    return job, kept


async def test_outputs_then_the_state_then_the_acknowledgement(flow: Flow) -> None:
    job, kept = remembered(flow)
    flow.settler.answered(job, [Double(2), Double(3)])
    flow.broker.answer()
    assert kept.then is None
    flow.broker.answer()
    assert kept.then is not None
    assert flow.broker.said == []
    kept.end()
    assert flow.broker.heard() == [("ack", 1)]
    assert [one for one, _ in flow.left] == [job]


async def test_without_outputs_the_state_is_written_all_the_same(flow: Flow) -> None:
    job, kept = remembered(flow)
    flow.settler.answered(job, [])
    assert flow.broker.said == []
    kept.end()
    assert flow.broker.heard() == [("ack", 1)]


async def test_no_state_is_written_of_what_fails(flow: Flow) -> None:
    job, kept = remembered(flow)
    flow.settler.answered(job, [Double(2)])
    flow.broker.answer(error=PublishError("no"))
    await turns()
    assert kept.then is None
    assert [what for what, _ in flow.broker.heard()] == ["nak"]
    job, kept = remembered(flow, sequence=2)
    flow.settler.failed(job, ValueError("broken"))
    assert kept.then is None


async def test_a_state_that_is_another_by_then_brings_the_message_back(flow: Flow) -> None:
    job, kept = remembered(flow)
    flow.settler.answered(job, [])
    kept.end(StateChanged("reset"))
    await turns()
    assert [what for what, _ in flow.broker.heard()] == ["nak"]
    assert b'"failures"' not in b"".join(flow.broker.ended.values())  # no attempt was spent


@pytest.mark.parametrize("error", [None, StateChanged("reset")])
async def test_nothing_is_said_of_a_message_that_is_another_workers(
    flow: Flow, owned: Owned, error: Exception | None
) -> None:
    job, kept = remembered(flow)
    flow.settler.answered(job, [])
    owned.lost.add(1)
    kept.end(error)
    assert flow.broker.said == []
    # Nor is a state written whose message was lost while its outputs were stored.
    job, kept = remembered(flow, sequence=2)
    flow.settler.answered(job, [Double(2)])
    owned.lost.add(2)
    flow.broker.answer()
    assert kept.then is None
    assert flow.broker.said == []


async def test_a_stop_gives_back_what_is_being_written(flow: Flow) -> None:
    job, kept = remembered(flow)
    flow.settler.answered(job, [])
    flow.settler.hand_back(job)
    kept.end()
    assert flow.broker.heard() == [("nak", 1)]


async def test_what_was_seen_before_is_acknowledged(flow: Flow) -> None:
    job = flow.job()
    flow.runner.jobs[1] = job
    flow.settler.repeated(job)
    assert flow.broker.heard() == [("ack", 1)]
    assert flow.broker.published == []


async def test_the_state_is_written_when_timers_and_the_record_are_stored(flow: Flow) -> None:
    """What a state has seen is not handled again: nothing else may be left to do by then."""
    timers = Timers()
    flow.settler = flow.make_settler(recorder=Records(), timers=timers)
    job, kept = remembered(flow)
    flow.settler.answered(job, [Double(2)])
    assert timers.done is None
    flow.broker.answer()
    assert timers.done is not None
    assert len(flow.broker.published) == 1
    timers.done(None, False)
    assert flow.broker.published[-1].payload == b"answered 1"
    assert kept.then is None
    flow.broker.answer()
    assert kept.then is not None
    assert flow.broker.said == []
    kept.end()
    assert flow.broker.heard() == [("ack", 1)]


async def test_a_timer_or_a_record_that_is_not_stored_leaves_the_state(flow: Flow) -> None:
    timers = Timers()
    flow.settler = flow.make_settler(recorder=Records(), timers=timers)
    job, kept = remembered(flow)
    flow.settler.answered(job, [])
    assert timers.done is not None
    timers.done(PublishError("no"), False)
    await turns()
    assert [what for what, _ in flow.broker.heard()] == ["nak"]
    job, other = remembered(flow, sequence=2)
    flow.settler.answered(job, [])
    flow.broker.answer(error=PublishError("no"))
    await turns()
    assert [what for what, _ in flow.broker.heard()] == ["nak", "nak"]
    assert kept.then is None
    assert other.then is None


async def test_what_was_seen_before_has_its_record(flow: Flow) -> None:
    flow.settler = flow.make_settler(recorder=Records())
    job = flow.job()
    flow.runner.jobs[1] = job
    flow.settler.repeated(job)
    assert flow.broker.heard() == [("ack", 1)]
    assert flow.broker.published == []
