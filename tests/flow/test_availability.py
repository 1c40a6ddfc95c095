"""Availability: up or down, since when, and who waits for it."""

from __future__ import annotations

import asyncio

from mqinfer.flow.availability import Availability
from tests.support.flow import Clock, turns


async def test_it_says_since_when_a_server_is_away_and_why() -> None:
    clock = Clock()
    triton = Availability("triton", clock)
    assert triton.blocked is None
    assert repr(triton) == "Availability(triton up)"
    clock.now += 10
    triton.down("refused")
    clock.now += 5
    triton.down("no answer")  # the outage is the same, its reason is the last
    assert triton.blocked == "triton is not available for 5 s: no answer"
    assert triton.since == 110.0
    clock.now += 1
    triton.up()
    assert (triton.blocked, triton.since) == (None, 116.0)
    clock.now += 1
    triton.up()
    assert triton.since == 116.0


async def test_who_waits_goes_on_when_it_is_up() -> None:
    server = Availability("triton")
    await server.wait_up()
    server.down("away")
    waiting = asyncio.create_task(server.wait_up())
    await turns()
    assert not waiting.done()
    server.up()
    await waiting
