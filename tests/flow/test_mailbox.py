"""Mailbox: order, handlers that are woken or cancelled at any moment, and when a batch is done."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqinfer.flow.job import Job
from mqinfer.flow.mailbox import Mailbox
from tests.support.flow import Clock, Delivered, turns

LONG = 1_000.0


def mailbox(batch_size: int = 1, batch_wait: float = LONG, *, more: bool = True) -> Mailbox:
    return Mailbox(batch_size, batch_wait, lambda: more, Clock())


def job(sequence: int, received: float = 100.0) -> Job:
    return Job(Delivered(sequence), received, received)


def sequences(jobs: list[Job]) -> list[int]:
    return [job.delivery.sequence for job in jobs]


async def test_jobs_are_taken_in_the_order_of_their_arrival() -> None:
    box = mailbox()
    for sequence in range(5):
        box.put(job(sequence))
    assert [sequences(await box.take()) for _ in range(5)] == [[n] for n in range(5)]


async def test_an_idle_handler_is_woken() -> None:
    box = mailbox()
    taken = asyncio.create_task(box.take())
    await turns()
    box.put(job(1))
    assert sequences(await taken) == [1]


async def test_a_handler_that_is_cancelled_when_it_was_woken_leaves_the_job_to_another() -> None:
    box = mailbox()
    first, second = asyncio.create_task(box.take()), asyncio.create_task(box.take())
    await turns()
    box.put(job(1))  # wakes the first
    first.cancel()
    await turns()
    assert first.cancelled()
    assert second.done()
    assert sequences(await second) == [1]


async def test_what_no_handler_has_begun_with_can_be_taken_out() -> None:
    box = mailbox()
    box.put(job(1))
    box.put(job(2))
    assert len(box) == 2
    assert sequences(box.empty()) == [1, 2]
    assert (len(box), box.empty()) == (0, [])
    assert "0 jobs, 0 idle handlers" in repr(box)


async def test_the_newest_that_nobody_looked_at_can_be_taken_out() -> None:
    box = mailbox()
    for sequence in range(1, 6):
        box.put(job(sequence))
    first = job(9)
    first.open("s", None, None)
    box.put_first(first)
    assert sequences(box.take_last(2)) == [4, 5]
    assert sequences(box.take_last(9)) == [1, 2, 3]  # what was looked at waits for its turn
    assert sequences(await box.take()) == [9]


async def test_what_is_put_first_is_taken_first_and_wakes_a_handler() -> None:
    box = mailbox()
    taken = asyncio.create_task(box.take())
    await turns()
    box.put_first(job(1))
    box.put_first(job(2))
    assert sequences(await taken) == [2]


steps = st.lists(
    st.tuples(st.sampled_from(["put", "put", "take", "cancel", "turn"]), st.integers(0, 99)),
    max_size=60,
)


@pytest.mark.parametrize("batch_size", [1, 3])
@settings(max_examples=150, deadline=None)
@given(steps=steps)
def test_every_job_goes_to_exactly_one_taker(batch_size: int, steps: list[tuple[str, int]]) -> None:
    async def walk() -> None:
        box = mailbox(batch_size, batch_wait=0.0)
        takers: list[asyncio.Task[list[Job]]] = []
        put = 0
        for step, number in steps:
            if step == "put":
                box.put(job(put))
                put += 1
            elif step == "take":
                takers.append(asyncio.create_task(box.take()))
            elif step == "cancel" and takers:
                takers[number % len(takers)].cancel()
            elif step == "turn":
                await asyncio.sleep(0)
        await turns(2 * put + len(takers) + 20)
        taken = [
            sequence
            for taker in takers
            if taker.done() and not taker.cancelled()
            for sequence in sequences(taker.result())
        ]
        waiting = [taker for taker in takers if not taker.done()]
        # Nobody waits while there is something to take.
        assert not (waiting and len(box))
        for taker in waiting:
            taker.cancel()
        await turns()
        left = sequences(box.empty())
        assert left == sorted(left)
        assert Counter(taken) + Counter(left) == Counter(range(put))

    asyncio.run(walk())


# --- batches ------------------------------------------------------------------------------------


async def test_a_batch_is_done_when_it_is_full() -> None:
    box = mailbox(3)
    taken = asyncio.create_task(box.take())
    for sequence in range(2):
        box.put(job(sequence))
        await turns()
        assert not taken.done()
    for sequence in range(2, 5):
        box.put(job(sequence))
    assert sequences(await taken) == [0, 1, 2]
    assert len(box) == 2


async def test_a_batch_is_done_when_its_first_is_old() -> None:
    box = mailbox(3, 5.0)
    box.put(job(1, received=95.0))  # five seconds ago
    box.put(job(2, received=100.0))
    assert sequences(await box.take()) == [1, 2]


async def test_a_batch_waits_for_its_time_and_no_longer() -> None:
    box = mailbox(3, 0.01)
    clock = box._clock
    assert isinstance(clock, Clock)
    box.put(job(1))
    taken = asyncio.create_task(box.take())
    await turns()
    assert not taken.done()
    clock.now += 0.01
    assert sequences(await taken) == [1]


async def test_a_batch_is_done_when_no_more_can_come() -> None:
    box = mailbox(3, more=False)
    box.put(job(1))
    assert sequences(await box.take()) == [1]


async def test_a_batch_that_is_taken_out_while_it_gathers_is_empty() -> None:
    box = mailbox(3)
    box.put(job(1))
    taken = asyncio.create_task(box.take())
    await turns()
    assert sequences(box.empty()) == [1]
    taken.cancel()
    await turns()
    assert taken.cancelled()
