"""Intake: nothing is asked for that has no slot, nor while a gate is closed, and all else is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqinfer.flow.intake import GATHER, Intake, Source
from mqinfer.flow.slots import Slots
from mqinfer.testing import until
from tests.support.flow import LARGEST, FakeBroker, FakePull, turns


class Asking:
    """An intake whose requests are written down, with gates that the test opens and closes."""

    def __init__(self, messages: int = 8) -> None:
        self.broker: Any = FakeBroker()
        self.slots = Slots(messages, 1 << 20, LARGEST)
        self.reasons: list[str | None] = [None, None]
        self.arrived: list[Any] = []
        gates = [lambda: self.reasons[0], lambda: self.reasons[1]]
        self.intake = Intake("s", Source("t", "s", self.broker, self._recreate, gates), self.slots)

    async def _recreate(self) -> None:
        return None

    async def open(self) -> FakePull:
        await self.intake.open(self.arrived.append)
        pull: FakePull = self.broker.pulls[0]
        return pull


async def test_it_asks_for_what_is_free_and_no_more() -> None:
    made = Asking(8)
    pull = await made.open()
    assert pull.requests == [(8, 1 << 19)]
    made.intake.look()
    assert pull.asked == 8
    made.slots.arrive(10)
    made.intake.look()
    assert pull.asked == 8  # it holds its slot
    made.slots.release(10)
    made.intake.look()
    assert pull.asked == 9
    assert made.slots.free == 0


async def test_what_a_request_did_not_bring_is_asked_for_again() -> None:
    made = Asking(8)
    pull = await made.open()
    made.broker.on_released(8, 1 << 19)
    assert pull.asked == 8
    await turns()
    assert (pull.asked, made.slots.asked) == (16, 8)


async def test_few_free_slots_are_asked_for_together() -> None:
    made = Asking(8)
    pull = await made.open()
    loop = asyncio.get_running_loop()
    started = loop.time()
    made.broker.on_released(1, 0)
    made.broker.on_released(1, 0)
    await until(lambda: pull.asked > 8, "the request")
    assert loop.time() - started >= GATHER * 0.9  # a clock has its grain
    assert [messages for messages, _ in pull.requests] == [8, 2]


async def test_a_closed_gate_stops_the_asking_and_says_why() -> None:
    made = Asking(8)
    made.reasons[1] = "triton is away"
    pull = await made.open()
    assert (pull.requests, made.intake.blocked) == ([], "triton is away")
    made.reasons[0] = "clickhouse is away"
    made.intake.look()
    assert made.intake.blocked == "clickhouse is away"  # the first of them
    made.intake.ask_soon()
    await turns()
    assert pull.requests == []
    made.reasons = [None, None]
    made.intake.look()
    assert (pull.asked, made.intake.blocked) == (8, None)
    assert "blocked=None" in repr(made.intake)


async def test_a_paused_pull_is_not_asked() -> None:
    made = Asking(8)
    pull = await made.open()
    pull.paused = True
    made.broker.on_released(8, 1 << 19)
    await turns()
    assert pull.asked == 8
    pull.paused = False
    made.intake.look()
    assert pull.asked == 16


async def test_once_closed_it_asks_no_more() -> None:
    made = Asking(8)
    pull = await made.open()
    made.broker.on_released(8, 1 << 19)  # about to be asked for
    await made.intake.close()
    made.broker.on_released(1, 0)
    made.intake.look()
    await turns()
    assert (pull.closed, pull.asked) == (True, 8)


async def test_it_may_be_closed_before_it_was_opened() -> None:
    await Asking().intake.close()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["arrive", "leave", "end", "gate", "pause", "look", "turn"]),
            st.integers(0, 99),
        ),
        max_size=50,
    )
)
@pytest.mark.parametrize("messages", [1, 6])
def test_in_the_end_every_free_slot_is_asked_for(
    messages: int, steps: list[tuple[str, int]]
) -> None:
    async def walk() -> None:
        made = Asking(messages)
        pull, slots = await made.open(), made.slots
        held: list[int] = []
        for step, number in steps:
            before = pull.asked
            if step == "arrive" and slots.asked:
                held.append(1 + number)
                slots.arrive(held[-1])
            elif step == "leave" and held:
                slots.release(held.pop())
                made.intake.ask_soon()
            elif step == "end" and slots.asked:
                made.broker.on_released(1 + number % slots.asked, 0)
            elif step == "gate":
                made.reasons[0] = "away" if number % 2 else None
            elif step == "pause":
                pull.paused = bool(number % 2)
            elif step == "look":
                made.intake.look()
            else:
                await asyncio.sleep(0)
            assert slots.in_flight + slots.asked <= messages
            if made.reasons[0] or pull.paused:
                assert pull.asked == before
        made.reasons[0], pull.paused = None, False
        await asyncio.sleep(2 * GATHER)
        made.intake.look()
        slots.withdraw(0, slots.bytes_asked)  # the bytes of requests that are done
        made.intake.look()
        assert slots.free == 0
        await made.intake.close()

    asyncio.run(walk())
