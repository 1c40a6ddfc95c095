"""A burst on one key: handled one after the other, and written together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mqinfer import App, Message, Reject, State, plan
from mqinfer.adapters.bucket import JetStreamBucket
from mqinfer.backoff import Backoff
from mqinfer.errors import PublishError, StateChanged
from mqinfer.settings import Settings
from mqinfer.state import reading
from mqinfer.state.cache import Version
from mqinfer.state.memory import MOST, TOGETHER, Line, Memory
from mqinfer.testing import Harness, until

SOON = Backoff(initial=0.01, maximum=0.05)


class Step(Message, key="who", ordered=True):
    who: str
    value: int


class Sum(Message, key="who"):
    who: str
    total: int


class Total(State):
    total: int = 0


class Keeper:
    """Writes down what is to be written; a test says how that ends."""

    def __init__(self) -> None:
        self.writes: list[int] = []
        self.ended: list[Line] = []
        self.passed: list[Memory] = []
        self.waiting: list[Line] = []

    def value(self, version: Version, _token: str) -> Any:
        return [] if version.record is None else list(version.record.value)  # type: ignore[attr-defined]

    def sealed(self, state: Any, sequence: int, _token: str) -> Any:
        return SimpleNamespace(value=[*state, sequence], sequence=sequence), b"12345678"

    def write(self, _line: Line, newest: Memory) -> None:
        assert newest.record is not None
        self.writes.append(newest.record.sequence)

    def passes(self, memory: Memory) -> None:
        self.passed.append(memory)

    def later(self, line: Line, _seconds: float) -> None:
        self.waiting.append(line)

    def empty(self, line: Line) -> None:
        self.ended.append(line)


class Burst:
    """Messages of one key, each begun behind the one before."""

    def __init__(self, count: int, *, tenure: object = 1):
        self.keeper: Any = Keeper()
        self.line = Line(self.keeper, "k", tenure, Version(7, None))
        self.told: list[tuple[int, type | None]] = []
        self.memories: list[Memory] = []
        for number in range(1, count + 1):
            job: Any = SimpleNamespace(delivery=SimpleNamespace(sequence=number))
            if self.memories:
                memory = self.memories[-1].behind(job)
            else:
                memory = Memory(self.line, job, "k", self.line.version)
            assert memory.begin() == list(range(1, number))  # type: ignore[comparison-overlap]
            memory.seal()
            self.memories.append(memory)

    def tell(self, number: int) -> Any:
        return lambda error: self.told.append((number, None if error is None else type(error)))

    def keep(self, *numbers: int) -> None:
        for number in numbers:
            self.memories[number - 1].keep(self.tell(number))

    def drop(self, number: int, error: Exception) -> None:
        self.memories[number - 1].drop(error, self.tell(number))

    def written(self, revision: int, number: int) -> None:
        self.line.written(Version(revision, self.memories[number - 1].record))


def test_one_write_is_under_way_and_takes_all_that_is_stored_by_then() -> None:
    burst = Burst(6)
    burst.keep(1, 2)
    assert burst.keeper.writes == []  # the third is at work
    assert burst.keeper.waiting == [burst.line]
    burst.line.overdue()
    assert burst.keeper.writes == [2]
    burst.keep(3, 4, 5)
    burst.line.overdue()  # a call that came too late
    assert burst.keeper.writes == [2]
    burst.written(8, 2)
    assert burst.line.version.revision == 8
    assert burst.told == [(1, None), (2, None)]
    burst.keep(6)
    assert burst.keeper.writes == [2, 6]  # nobody follows: at once
    burst.written(9, 6)
    assert burst.told[2:] == [(number, None) for number in (3, 4, 5, 6)]
    assert burst.keeper.ended == [burst.line]
    assert burst.line.size == 0
    alone = Burst(1)
    alone.keep(1)
    assert alone.keeper.writes == [1]
    many = Burst(TOGETHER + 1)
    many.keep(*range(1, TOGETHER + 1))
    assert many.keeper.writes == [TOGETHER]


def test_one_that_fails_waits_for_those_before_it_and_takes_those_behind_it() -> None:
    burst = Burst(4)
    burst.drop(3, ValueError("broken"))
    burst.keep(4, 1)
    assert burst.told == []
    burst.line.overdue()
    burst.written(8, 1)
    assert burst.told == [(1, None)]
    burst.keep(2)
    burst.written(9, 2)
    assert burst.keeper.writes == [1, 2]
    assert burst.told[1:] == [(3, ValueError), (4, StateChanged), (2, None)]
    assert burst.keeper.ended == [burst.line]


def test_one_at_work_behind_one_that_failed_is_told_when_it_is_done() -> None:
    burst = Burst(3)
    burst.drop(1, PublishError("no"))
    assert burst.told == [(1, PublishError)]
    assert burst.memories[1].void
    burst.drop(3, Reject("beside a state that is void"))
    assert burst.told == [(1, PublishError)]
    burst.keep(2)
    assert burst.told[1:] == [(2, StateChanged), (3, StateChanged)]
    assert burst.keeper.writes == []


@pytest.mark.parametrize(("seen", "done"), [(0, []), (1, [1]), (2, [1, 2])])
def test_a_state_of_another_takes_those_that_it_has_not_seen(seen: int, done: list[int]) -> None:
    burst = Burst(3)
    burst.keep(1, 2)
    burst.line.overdue()
    burst.keep(3)
    assert burst.keeper.writes == [2]
    burst.line.refused(StateChanged("another"), lambda one: one.job.delivery.sequence <= seen)
    assert sorted(burst.told) == [
        (number, None if number in done else StateChanged) for number in (1, 2, 3)
    ]
    assert burst.keeper.writes == [2]
    assert burst.keeper.ended == [burst.line]


def test_what_is_wrong_with_one_write_is_told_to_its_message_alone() -> None:
    burst = Burst(2)
    burst.keep(1)
    burst.line.overdue()
    burst.keep(2)
    assert burst.keeper.writes == [1]
    burst.line.refused(PublishError("too large"))
    assert burst.told == [(1, PublishError), (2, StateChanged)]


def test_one_that_left_lets_none_be_written_behind_it() -> None:
    burst = Burst(2)
    burst.keep(2)
    burst.memories[0].leave()
    assert burst.told == [(2, StateChanged)]
    assert burst.keeper.writes == []


def test_a_burst_is_bounded_and_needs_an_owner() -> None:
    def passed(burst: Burst, number: int) -> bool:
        burst.keep(number)
        return burst.keeper.passed[-1:] == [burst.memories[number - 1]]

    assert passed(Burst(2), 2)
    assert not passed(Burst(2), 1)  # the second has begun already
    assert passed(Burst(MOST - 1), MOST - 1)
    assert not passed(Burst(MOST), MOST)
    large = Burst(2)
    large.line.size = 2**20
    assert not passed(large, 2)
    assert not passed(Burst(1, tenure=None), 1)


# --- on a real nats-server -----------------------------------------------------------------------


async def test_a_burst_costs_few_writes(nats: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    app, writes = App("plants", partitions=1), list[str]()
    put = JetStreamBucket.put

    def counted(self: Any, key: str, *rest: Any, **named: Any) -> None:
        writes.append(key)
        put(self, key, *rest, **named)

    monkeypatch.setattr(JetStreamBucket, "put", counted)

    @app.stage
    async def add(step: Step, state: Total) -> Sum:
        state.total += step.value
        return Sum(step.who, state.total)

    async with Harness(app, nats) as harness:
        await harness.publish(*(Step("p", 1) for _ in range(200)))
        await harness.drain()
        assert [one.total for one in await harness.messages(Sum)] == list(range(1, 201))
        assert await harness.state("add", "p") == Total(200)
    assert 0 < len(writes) <= 100


async def test_failures_resets_and_refused_outputs_in_a_burst_leave_each_counted_once(
    nats: Settings,
) -> None:
    """What fails comes again before its successors, which begin anew from what it leaves."""
    app = App("plants", partitions=1)
    failed: set[int] = set()
    refused: set[int] = set()

    @app.stage(backoff=SOON, attempts=3)
    async def add(step: Step, state: Total) -> Sum:
        if step.value % 31 == 30 and step.value not in failed:
            failed.add(step.value)
            raise ValueError("not at the first attempt")
        if step.value % 47 == 46:
            raise Reject("never")
        state.total += step.value
        return Sum(step.who, state.total)

    async with Harness(app, nats) as harness, harness.worker() as worker:
        await until(lambda: not worker.not_ready(), "readiness")
        publisher = worker.services.broker.publisher  # type: ignore[attr-defined]
        finish = publisher._finish
        seen: list[int] = []

        def refuse_some(number: int, entry: Any, error: Any, repeat: bool = False) -> None:
            """The server says no to an output, though it has stored it."""
            if entry.subject == b"plants.sum.p" and error is None and not repeat:
                seen.append(number)
                if len(seen) % 40 == 20:
                    refused.add(number)
                    error = PublishError("refused")
            finish(number, entry, error, repeat)

        publisher._finish = refuse_some
        await harness.publish(*(Step("p", value) for value in range(200)))
        total, expected = 0, list[int]()
        for value in range(200):
            if value % 47 != 46:
                total += value
                expected.append(total)

        async def all_() -> bool:
            return await harness.state("add", "p") == Total(total)

        await until(all_, "the last state", timeout=60)
        assert [one.total for one in await harness.messages(Sum)] == expected
        assert len(await harness.dead()) == len([v for v in range(200) if v % 47 == 46])
        assert failed
        assert refused
        bucket = harness.services.broker.bucket(plan.memory_bucket(app))
        assert await reading.reset(app, "add", "p", bucket)
        await harness.publish(Step("p", 1), Step("p", 2))

        async def anew() -> bool:
            return await harness.state("add", "p") == Total(3)

        await until(anew, "the new state")
