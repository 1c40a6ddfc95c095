"""Runner: redelivery, what is not admitted, an orderly stop, suspects, and any mixture."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqinfer.errors import PublishError, Reject
from mqinfer.flow.deadletter import KIND
from mqinfer.identity import MSG_ID, retry_id
from tests.support.flow import STAND_STILL, Begun, Double, Flow, Number, Owned, pass_time, turns


@pytest.fixture
def begun() -> Begun:
    return Begun()


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


SENT_BACK = {"Mq-Only": "another", MSG_ID: retry_id("dead.t.another", 1, "2026")}


async def test_what_cannot_be_read_is_rejected_and_goes_by_without_a_handler(begun: Begun) -> None:
    async def handler(number: Number) -> None:
        await begun.begin(number.value)

    flow = Flow(handler)
    async with flow.running():
        flow.broker.on_message(flow.job(3, data=b"?").delivery)
        flow.broker.on_message(flow.job(4, headers=SENT_BACK).delivery)
        await turns()
        flow.broker.answer_all()
        assert flow.broker.heard() == [("ack", 4), ("term", 3)]
        assert (begun.calls, flow.slots.in_flight) == ([], 0)


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


def marked(flow: Flow) -> dict[str, bytes]:
    """What the bucket holds of suspects."""
    return {key: value for key, (value, _) in flow.broker.counts.values.items() if value}


async def dead_in(flow: Flow, most: int, *sequences: int, alone: int = 0) -> None:
    """Of these a worker died, as so many were at work."""
    values = flow.broker.counts.values
    values["group.g"] = (b"%d" % most, 1)
    for sequence in sequences:
        values[f"s.suspect.{sequence}"] = (b'{"group":"g","alone":%d}' % alone, 1)


async def test_suspects_are_handled_together_with_marks(begun: Begun) -> None:
    async def handler(numbers: list[Number]) -> list[Double]:
        await begun.begin(*(number.value for number in numbers))
        return [Double(number.value) for number in numbers]

    begun.hang |= {2}
    flow = Flow(handler, batch_size=4, batch_wait=0.0, concurrency=2)
    async with flow.running():
        for sequence, attempt in ((1, 1), (2, 3), (3, 2), (4, 3)):
            flow.deliver(sequence, attempt=attempt)
        await turns()
        assert sorted(map(sorted, begun.calls)) == [[1, 3], [2, 4]]
        marks = marked(flow)
        (group,) = {key for key in marks if key.startswith("group.")}
        assert marks.pop(group) == b"2"  # before the handler runs
        assert set(marks) == {"s.suspect.2", "s.suspect.4"}
        begun.let_go()
        await turns(200)
        flow.broker.answer_all()
        assert set(marked(flow)) == {group}
        assert sorted(flow.values) == [1, 2, 3, 4]


async def test_those_of_one_death_are_handled_by_halves(begun: Begun) -> None:
    async def handler(number: Number) -> None:
        await begun.begin(number.value)

    begun.hang |= set(range(1, 9))
    flow = Flow(handler)
    await dead_in(flow, 8, *range(1, 9))
    async with flow.running():
        for sequence in range(1, 9):
            flow.deliver(sequence, attempt=4)
        await turns(50)
        assert begun.calls == [[1], [2], [3], [4]]
        begun.let_go()
        await turns(50)
        assert sorted(begun.calls) == [[value] for value in range(1, 9)]


async def test_suspects_that_wait_take_no_handler_of_others(begun: Begun) -> None:
    async def handler(number: Number) -> None:
        await begun.begin(number.value)

    begun.hang |= set(range(1, 20))
    flow = Flow(handler, concurrency=3, max_in_flight=10)
    await dead_in(flow, 2, *range(1, 5))
    async with flow.running():
        for sequence in range(1, 5):
            flow.deliver(sequence, attempt=4)
        await turns(50)
        assert begun.calls == [[1]]
        flow.slots.withdraw(flow.slots.asked, flow.slots.bytes_asked)
        assert flow.slots.free == 0
        await pass_time(flow, 0.1)
        assert (flow.slots.aside, flow.slots.free) == (3, flow.slots.max_unhandled - 1)
        flow.deliver(11)
        flow.deliver(12)
        await turns(50)
        assert begun.calls == [[1], [11], [12]]
        begun.let_go()
        await turns(200)
        await pass_time(flow, 0.1)
        assert flow.slots.aside == 0
    assert sorted(flow.broker.heard()) == [("ack", n) for n in (1, 2, 3, 4, 11, 12)]


async def test_a_stop_hands_back_suspects_that_wait(begun: Begun) -> None:
    async def handler(number: Number) -> None:
        await begun.begin(number.value)

    begun.hang |= {1, 2, 3}
    flow = Flow(handler)
    await dead_in(flow, 2, 1, 2, 3)
    async with flow.running(grace=20.0) as running:
        for sequence in (1, 2, 3):
            flow.deliver(sequence, attempt=4)
        await turns(50)
        running.stop.set()
        await turns(50)
        assert flow.broker.heard() == [("nak", 2), ("nak", 3)]
        begun.let_go()
        await running.task
    assert flow.broker.heard()[2:] == [("ack", 1)]
    assert "s.back" in flow.broker.counts.values
    assert repr(flow.lane) == "Lane(0 at work, 0 wait)"


async def test_a_message_that_killed_its_workers_is_not_begun_again(begun: Begun) -> None:
    async def handler(number: Number) -> None:
        await begun.begin(number.value)

    flow = Flow(handler, attempts=3)
    await dead_in(flow, 1, 1, alone=2)  # it was alone when its worker died, for the third time
    async with flow.running():
        flow.deliver(1, attempt=6)
        await turns()
        assert [one.headers[KIND] for one in flow.broker.published] == ["killed"]
        flow.broker.answer_all()
    assert (begun.calls, flow.broker.heard()) == ([], [("term", 1)])


# --- any mixture --------------------------------------------------------------------------------

WALK = st.lists(
    st.tuples(
        st.sampled_from(
            ["deliver", "deliver", "again", "answer", "refuse", "hang", "let go", "time", "lose"]
        ),
        st.integers(0, 99),
    ),
    max_size=50,
)


@pytest.mark.parametrize("batch_size", [1, 3])
@settings(max_examples=120, deadline=None)
@given(steps=WALK)
def test_every_message_has_one_end_and_no_slot_leaks(
    batch_size: int, steps: list[tuple[str, int]]
) -> None:
    """Whatever comes in between: what was told once is not told again, what was lost is silent."""

    async def walk() -> None:
        begun, policy = Begun(), Owned()

        def outcome(number: Number) -> Double | None:
            if number.value % 4 == 1:
                raise Reject("one in four")
            return Double(number.value) if number.value % 3 else None

        async def one(number: Number) -> Double | None:
            await begun.begin(number.value)
            return outcome(number)

        async def many(numbers: list[Number]) -> list[Double | None]:
            await begun.begin(*(number.value for number in numbers))
            return [outcome(number) for number in numbers]

        flow = Flow(
            many if batch_size > 1 else one,
            policy=policy,
            **({"batch_size": batch_size, "batch_wait": 0.0} if batch_size > 1 else {}),
            concurrency=2,
            max_in_flight=20,
            attempts=9,
        )
        broker, open_jobs, count = flow.broker, flow.runner.jobs, 0
        async with flow.running() as running:
            for step, number in steps:
                if step == "deliver" and len(open_jobs) < 20:
                    count += 1
                    flow.deliver(count, attempt=1 + number % 2, size=1 + number)
                elif step == "again" and open_jobs:
                    flow.deliver(list(open_jobs)[number % len(open_jobs)], attempt=2, size=5)
                elif step in ("answer", "refuse") and broker.unanswered:
                    error = PublishError("no") if step == "refuse" else None
                    broker.answer(number % len(broker.unanswered), error)
                elif step == "hang":
                    begun.hang.add(count + 1 + number % 3)
                elif step == "let go":
                    begun.let_go()
                elif step == "time":
                    await pass_time(flow, STAND_STILL)
                elif step == "lose":
                    policy.lost.add(1 + number % (count + 1))
                await turns(number % 6)
                assert flow.slots.in_flight == len(open_jobs)
                assert 0 <= flow.slots.storing <= flow.slots.in_flight
            begun.let_go()
            for _ in range(10):
                await turns()
                broker.answer_all()
            assert not open_jobs
            assert all(task.cancelling() == 0 for task in begun.tasks)
            running.stop.set()
            await running.task
        heard = Counter(sequence for _, sequence in broker.heard())
        assert set(heard.values()) <= {1}
        assert set(range(1, count + 1)) - set(heard) <= policy.lost
        assert (flow.slots.in_flight, flow.slots.bytes_in_flight, flow.slots.storing) == (0, 0, 0)

    asyncio.run(walk())
