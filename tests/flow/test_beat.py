"""The loop's signs of life: what a loop that stood still knows of it when it turns again."""

from __future__ import annotations

import asyncio
import math

from mqinfer.errors import Unavailable
from mqinfer.flow.beat import EVERY, Beat
from tests.support.flow import Clock, turns


class Asked:
    """Catching up that ends when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[None]] = []

    async def __call__(self) -> None:
        self.waiting.append(asyncio.get_running_loop().create_future())
        await self.waiting[-1]


def made() -> tuple[Beat, Clock, Asked, list[float]]:
    clock, asked, turned = Clock(), Asked(), list[float]()
    return Beat(turned=turned.append, catch_up=asked, clock=clock), clock, asked, turned


async def test_a_loop_that_runs_was_sent_what_it_reads_since_the_sign_of_life_before() -> None:
    beat, clock, asked, turned = made()
    assert beat.missing() == -math.inf
    with beat.beating():
        for _ in range(5):
            clock.now += EVERY
            before = beat.last
            beat._beat()
            assert (beat.last, beat.sent_after) == (clock.now, before)
        await turns()
        assert turned == asked.waiting == []
    assert beat.missing() == -math.inf


async def test_after_a_stand_still_what_is_read_may_be_as_old_as_that_until_it_is_read_up() -> None:
    beat, clock, asked, turned = made()
    with beat.beating():
        clock.now += EVERY
        beat._beat()
        long_ago = beat.sent_after
        clock.now += 10
        beat._beat()
        assert turned == [10]
        clock.now += EVERY
        beat._beat()
        assert beat.sent_after == long_ago
        await turns()
        clock.now += 5  # it stands still again, before all is read
        beat._beat()
        asked.waiting[0].set_result(None)
        await turns()
        assert beat.sent_after == clock.now - 5  # when it was asked for the first time
        assert len(asked.waiting) == 2
        asked.waiting[1].set_exception(Unavailable("away"))
        await turns()
        assert beat.sent_after == clock.now
        clock.now += EVERY
        beat._beat()
        assert turned == [10, 5]
        assert beat.sent_after == clock.now - EVERY


async def test_who_waits_for_the_loop_to_turn_goes_on_after_the_next_sign_of_life() -> None:
    beat, clock, asked, _ = made()
    with beat.beating():
        async with asyncio.timeout(120):
            await beat.turns()
        clock.now += 10
        waiting = asyncio.create_task(beat.turns())
        await turns()
        assert not waiting.done()
        beat._beat()
        async with asyncio.timeout(120):
            await waiting
        for one in asked.waiting:
            one.set_result(None)
