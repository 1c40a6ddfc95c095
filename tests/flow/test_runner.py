"""Runner: redelivery, timeouts, lost leases, what swallows a cancellation, and an orderly stop."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from mqinfer.backoff import Backoff
from mqinfer.context import Context
from mqinfer.errors import Reject
from mqinfer.flow.deadletter import KIND
from mqinfer.flow.policy import Policy
from tests.support.flow import Double, Flow, Number, turns

SOON = Backoff(initial=0.0, jitter=0.0)
STAND_STILL = 61.0  # seconds, past the timeout of a stage that says nothing


class Owned(Policy):
    """Messages that are this worker's until they are named in `lost`; those in `out` never were."""

    def __init__(self) -> None:
        self.lost: set[int] = set()
        self.out: set[int] = set()

    def admits(self, delivery: Any) -> bool:
        return delivery.sequence not in self.out

    def owns(self, job: Any, now: float) -> bool:
        return job.delivery.sequence not in self.lost


class Begun:
    """A handler's calls, each held until it is let go."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.hang: set[int] = set()
        self._let_go = asyncio.Event()

    def let_go(self) -> None:
        self.hang.clear()
        self._let_go.set()

    async def begin(self, *values: int) -> None:
        self.calls.append(list(values))
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        if self.hang & set(values):
            await self._let_go.wait()


@pytest.fixture
def begun() -> Begun:
    return Begun()


async def pass_time(flow: Flow, seconds: float) -> None:
    """The clock advances, the runner looks at it, and what that leads to happens."""
    flow.clock.now += seconds
    flow.runner.tick(flow.clock.now)
    await turns()


# --- deliveries ---------------------------------------------------------------------------------


async def test_a_redelivery_of_what_is_at_work_is_served_by_one_handling(begun: Begun) -> None:
    gate = asyncio.Event()

    async def handler(number: Number) -> Double:
        await begun.begin(number.value)
        await gate.wait()
        return Double(number.value)

    flow = Flow(handler)
    async with flow.running():
        flow.deliver(1, size=10)
        await turns()
        again = flow.deliver(1, size=12, attempt=2)
        await turns()
        assert (flow.slots.in_flight, flow.slots.bytes_in_flight) == (1, 12)
        assert flow.runner.jobs[1].delivery is again  # its reply is the one that counts now
        gate.set()
        await turns()
        flow.broker.answer_all()
        assert begun.calls == [[1]]
        assert flow.broker.heard() == [("ack", 1)]
        assert (flow.slots.in_flight, flow.slots.bytes_in_flight) == (0, 0)


async def test_what_is_not_admitted_is_acknowledged_and_takes_no_slot(begun: Begun) -> None:
    async def handler(number: Number) -> None:
        await begun.begin(number.value)

    policy = Owned()
    policy.out.add(2)
    flow = Flow(handler, policy=policy)
    async with flow.running():
        flow.deliver(1)
        flow.deliver(2)
        assert (flow.slots.in_flight, list(flow.runner.jobs)) == (1, [1])
        await turns()
        assert begun.calls == [[1]]
        assert sorted(flow.broker.heard()) == [("ack", 1), ("ack", 2)]
        assert flow.metrics.completed == 1


async def test_what_cannot_be_read_is_rejected_and_goes_by_without_a_handler(begun: Begun) -> None:
    async def handler(number: Number) -> None:
        await begun.begin(number.value)

    flow = Flow(handler)
    async with flow.running():
        flow.broker.on_message(flow.job(3, data=b"?").delivery)
        flow.broker.on_message(flow.job(4, headers={"Mq-Only": "another"}).delivery)
        await turns()
        flow.broker.answer_all()
        assert flow.broker.heard() == [("ack", 4), ("term", 3)]
        assert (begun.calls, flow.slots.in_flight) == ([], 0)


# --- time ---------------------------------------------------------------------------------------


async def test_a_handler_that_hangs_is_cancelled_and_its_message_fails(begun: Begun) -> None:
    async def handler(number: Number) -> None:
        await begun.begin(number.value)

    begun.hang.add(1)
    flow = Flow(handler, concurrency=1, backoff=SOON, attempts=1)
    async with flow.running():
        flow.deliver(1)
        await turns()
        await pass_time(flow, 59.0)
        assert flow.broker.published == []
        await pass_time(flow, 2.0)
        assert flow.broker.published[0].headers[KIND] == "timeout"
        flow.deliver(2)  # the one handler is free for the next
        await turns()
        flow.broker.answer_all()
        assert sorted(flow.broker.heard()) == [("ack", 2), ("term", 1)]
        assert begun.tasks[1].cancelling() == 0


async def test_of_a_batch_that_hangs_each_is_handled_alone_with_the_whole_timeout(
    begun: Begun,
) -> None:
    async def handler(numbers: list[Number]) -> list[Double]:
        await begun.begin(*(number.value for number in numbers))
        return [Double(number.value) for number in numbers]

    begun.hang.add(2)
    flow = Flow(handler, batch_size=3, concurrency=1, backoff=SOON)
    async with flow.running():
        for sequence in (1, 2, 3):
            flow.deliver(sequence)
        await turns()
        assert begun.calls == [[1, 2, 3]]
        await pass_time(flow, STAND_STILL)
        assert begun.calls == [[1, 2, 3], [1], [2]]
        assert flow.values == [1]
        await pass_time(flow, 59.0)
        assert flow.broker.heard() == []  # the time of the batch does not count
        await pass_time(flow, 2.0)
        assert begun.calls[3:] == [[3]]
        flow.broker.answer_all()
        assert sorted(flow.broker.heard()) == [("ack", 1), ("ack", 3), ("nak", 2)]
        assert begun.tasks[0].cancelling() == 0


async def test_a_wait_of_the_batch_lengthens_no_second_beginning(begun: Begun) -> None:
    async def handler(numbers: list[Number], contexts: list[Context]) -> list[Double]:
        if len(numbers) > 1:
            contexts[0].waited += 1_000.0
        await begun.begin(*(number.value for number in numbers))
        return [Double(number.value) for number in numbers]

    begun.hang |= {1, 2}
    flow = Flow(handler, batch_size=2, concurrency=1, backoff=SOON)
    async with flow.running():
        flow.deliver(1)
        flow.deliver(2)
        await turns()
        await pass_time(flow, 1_000.0 + STAND_STILL)
        assert begun.calls == [[1, 2], [1]]
        await pass_time(flow, STAND_STILL)
        assert begun.calls == [[1, 2], [1], [2]]
        await pass_time(flow, STAND_STILL)
        assert sorted(flow.broker.heard()) == [("nak", 1), ("nak", 2)]


async def test_of_a_batch_that_hangs_what_has_its_dead_letter_on_the_way_is_left(
    begun: Begun,
) -> None:
    async def handler(numbers: list[Number]) -> list[Double]:
        if any(number.value == 1 for number in numbers):
            raise Reject("one")
        await begun.begin(*(number.value for number in numbers))
        return [Double(number.value) for number in numbers]

    begun.hang.add(3)
    flow = Flow(handler, batch_size=3, concurrency=1, backoff=SOON)
    async with flow.running():
        for sequence in (1, 2, 3):
            flow.deliver(sequence)
        await turns()
        assert flow.broker.subjects() == ["dead.t.s", "t.double"]  # and 3 hangs
        await pass_time(flow, STAND_STILL)
        assert flow.broker.subjects() == ["dead.t.s", "t.double"]
        flow.broker.answer_all()
        await pass_time(flow, STAND_STILL)
        assert sorted(flow.broker.heard()) == [("ack", 2), ("nak", 3), ("term", 1)]


async def test_a_handler_that_swallows_its_cancellation_leaves_no_trace_of_it(
    begun: Begun,
) -> None:
    async def handler(number: Number) -> Double:
        with contextlib.suppress(asyncio.CancelledError):  # as a library may that always retries
            await begun.begin(number.value)
        return Double(number.value)

    begun.hang.add(1)
    flow = Flow(handler, concurrency=1)
    async with flow.running():
        flow.deliver(1)
        await turns()
        await pass_time(flow, STAND_STILL)
        assert flow.values == [1]
        assert begun.tasks[0].cancelling() == 0
        flow.broker.answer_all()
        assert flow.broker.heard() == [("ack", 1)]


async def test_a_handler_that_raises_a_cancellation_of_its_own_has_failed(begun: Begun) -> None:
    async def handler(number: Number) -> None:
        await begun.begin(number.value)
        if number.value == 1:
            raise asyncio.CancelledError  # as `await task` does for a task that was cancelled

    flow = Flow(handler, concurrency=1, backoff=SOON)
    async with flow.running():
        flow.deliver(1)
        flow.deliver(2)
        await turns()
        assert flow.broker.heard() == [("nak", 1), ("ack", 2)]


# --- leases -------------------------------------------------------------------------------------


async def test_a_batch_with_lost_leases_is_cancelled_once_and_the_others_go_on(
    begun: Begun,
) -> None:
    async def handler(numbers: list[Number]) -> list[Double]:
        await begun.begin(*(number.value for number in numbers))
        return [Double(number.value) for number in numbers]

    policy = Owned()
    begun.hang |= {1, 2, 3}
    flow = Flow(handler, policy=policy, batch_size=3, concurrency=1)
    async with flow.running():
        for sequence in (1, 2, 3):
            flow.deliver(sequence)
        await turns()
        policy.lost |= {1, 3}
        begun.hang = {1, 3}
        await pass_time(flow, 1.0)
        assert begun.calls == [[1, 2, 3], [2]]
        flow.broker.answer_all()
        assert flow.broker.heard() == [("ack", 2)]  # and not a word about the others
        assert begun.tasks[0].cancelling() == 0
        assert (flow.slots.in_flight, flow.slots.storing) == (0, 0)


async def test_a_lease_that_is_lost_is_not_renewed(begun: Begun) -> None:
    """The server would confirm it, though another worker has the message by then."""

    async def handler(number: Number) -> None:
        await begun.begin(number.value)

    policy = Owned()
    begun.hang.add(1)
    flow = Flow(handler, policy=policy, concurrency=1, ack_wait=30.0)
    async with flow.running():
        flow.deliver(1)
        flow.deliver(2)  # waits for the handler
        await turns()
        await pass_time(flow, 11.0)
        assert flow.broker.renewed == [1, 2]
        policy.lost |= {1, 2}
        await pass_time(flow, 30.0)
        assert flow.broker.renewed == [1, 2]
        assert flow.broker.heard() == []
        assert (begun.calls, flow.slots.in_flight) == ([[1]], 0)


async def test_a_lease_that_turns_out_to_be_ours_costs_its_message_nothing(begun: Begun) -> None:
    async def handler(number: Number) -> None:
        await begun.begin(number.value)

    policy = Owned()
    begun.hang.add(1)
    flow = Flow(handler, policy=policy, attempts=1)
    async with flow.running():
        flow.deliver(1)
        await turns()
        policy.lost.add(1)
        flow.runner.tick(flow.clock.now)
        policy.lost.clear()  # the confirmation of a renewal came late
        await turns()
        assert flow.broker.published == []  # no dead letter for a timeout that was none
        assert flow.broker.said == [("nak", 1, 0)]


# --- stop ---------------------------------------------------------------------------------------


async def test_a_stop_hands_back_what_has_not_begun_and_waits_for_what_has(begun: Begun) -> None:
    gate = asyncio.Event()

    async def handler(number: Number) -> Double:
        await begun.begin(number.value)
        await gate.wait()
        return Double(number.value)

    flow = Flow(handler, concurrency=1)
    async with flow.running(grace=1_000.0) as running:
        flow.deliver(1)
        flow.deliver(2)
        await turns()
        running.stop.set()
        await turns()
        assert flow.broker.pulls[0].closed
        assert flow.broker.said == [("nak", 2, 0)]
        flow.deliver(3)  # it was on its way
        assert flow.broker.said[1:] == [("nak", 3, 0)]
        gate.set()
        await turns()
        assert not running.task.done()  # its output is not stored yet
        flow.broker.answer_all()
        await running.task
    assert begun.calls == [[1]]
    assert flow.broker.heard()[2:] == [("ack", 1)]


@pytest.mark.parametrize("swallows", [False, True])
async def test_when_grace_is_over_handlers_are_cancelled_and_their_messages_given_back(
    begun: Begun, swallows: bool
) -> None:
    async def handler(number: Number) -> Double:
        try:
            await begun.begin(number.value)
        except asyncio.CancelledError:
            if not swallows:
                raise
        return Double(number.value)

    begun.hang.add(1)
    flow = Flow(handler)
    async with flow.running(grace=0.0):
        flow.deliver(1)
        await turns()
    assert flow.broker.said == [("nak", 1, 0)]
    assert (flow.runner.jobs, flow.slots.in_flight, flow.slots.storing) == ({}, 0, 0)


async def test_a_timeout_during_a_stop_is_a_failure_as_ever(begun: Begun) -> None:
    async def handler(number: Number) -> None:
        await begun.begin(number.value)

    begun.hang.add(1)
    flow = Flow(handler, attempts=1)
    async with flow.running(grace=1_000.0) as running:
        flow.deliver(1)
        await turns()
        running.stop.set()
        await turns()
        await pass_time(flow, STAND_STILL)
        assert [one.headers[KIND] for one in flow.broker.published] == ["timeout"]
        flow.broker.answer_all()
        await running.task
    assert flow.broker.heard() == [("term", 1)]


# --- suspects -----------------------------------------------------------------------------------


async def test_suspects_are_handled_alone_and_one_at_a_time(begun: Begun) -> None:
    async def handler(numbers: list[Number]) -> list[Double]:
        await begun.begin(*(number.value for number in numbers))
        return [Double(number.value) for number in numbers]

    begun.hang |= {2, 4}
    flow = Flow(handler, batch_size=4, concurrency=2)
    async with flow.running():
        for sequence, attempt in ((1, 1), (2, 3), (3, 2), (4, 3)):
            flow.deliver(sequence, attempt=attempt)
        for sequence in (5, 6, 7, 8):
            flow.deliver(sequence, attempt=3)
        await turns()
        assert begun.calls == [[2]]
        assert flow.lane.locked()
        assert flow.broker.counts.values == {
            "s.2": (b"1", 1)
        }  # its start is counted before its handler runs
        begun.let_go()
        await turns(200)
        flow.broker.answer_all()
        assert sorted(begun.calls) == [[1, 3], [2], [4], [5], [6], [7], [8]]
        assert {count for count, _ in flow.broker.counts.values.values()} == {b"0"}


async def test_a_message_that_killed_its_workers_is_not_begun_again(begun: Begun) -> None:
    async def handler(number: Number) -> None:
        await begun.begin(number.value)

    flow = Flow(handler, attempts=3)
    flow.broker.counts.values["s.1"] = (b"1", 1)  # it was alone when its worker died
    async with flow.running():
        flow.deliver(1, attempt=4)
        await turns()
        assert [one.headers[KIND] for one in flow.broker.published] == ["killed"]
        flow.broker.answer_all()
    assert (begun.calls, flow.broker.heard()) == ([], [("term", 1)])
