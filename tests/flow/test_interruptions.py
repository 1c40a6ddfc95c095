"""Interruptions: a runner cancels what hangs or is not ours, and nothing else, and once."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from mqinfer.backoff import Backoff
from mqinfer.context import Context
from mqinfer.errors import HandlerTimeout, Reject
from mqinfer.flow.deadletter import KIND
from tests.support.flow import STAND_STILL, Begun, Double, Flow, Number, Owned, pass_time, turns

SOON = Backoff(initial=0.0, jitter=0.0)


@pytest.fixture
def begun() -> Begun:
    return Begun()


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


async def test_progress_starts_the_time_anew(begun: Begun) -> None:
    async def handler(number: Number) -> None:
        await begun.begin(number.value)

    begun.hang.add(1)
    flow = Flow(handler)
    async with flow.running():
        flow.deliver(1)
        await turns()
        for _ in range(3):
            flow.runner.jobs[1].context.progress()
            await pass_time(flow, 50.0)
            assert flow.broker.heard() == []
        await pass_time(flow, STAND_STILL)
        assert flow.broker.heard() == [("nak", 1)]


async def test_the_worker_ends_when_too_many_threads_hang() -> None:
    async def handler(number: Number) -> None:
        return None

    flow = Flow(handler)
    flow.runner.tick(100.0)
    flow.handling._threads.abandoned = 10_000
    with pytest.raises(HandlerTimeout, match="to be started anew"):
        flow.runner.tick(100.0)
