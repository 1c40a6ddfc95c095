"""A replay asks for no more messages a second than it is told."""

from __future__ import annotations

import pytest

from mqinfer.replay.rate import BURST, RatedSlots


def test_a_rate_is_kept() -> None:
    now = 0.0
    slots = RatedSlots(1000, 10**9, 10, rate=100, clock=lambda: now)
    given = 0
    for _ in range(100):  # ten seconds
        now += 0.1
        while planned := slots.available():
            slots.ask(*planned)
            given += planned[0]
            for _ in range(planned[0]):
                slots.arrive(1)
                slots.release(1)
            slots.withdraw(0, planned[1])
    assert 950 <= given <= 1060
    now += 0.1
    planned = slots.available()
    assert planned is not None
    slots.ask(*planned)
    slots.withdraw(*planned)
    assert slots.available() == planned


@pytest.mark.parametrize("rate", [0.1, 1.0, 7.0, 5_000.0])
def test_after_a_pause_no_more_than_a_burst_is_asked_for(rate: float) -> None:
    now = 0.0
    slots = RatedSlots(100_000, 10**9, 10, rate=rate, clock=lambda: now)
    now += 3_600.0
    planned = slots.available()
    assert planned is not None
    assert planned[0] == max(1, int(rate * BURST))
    slots.ask(*planned)
    assert slots.available() is None
    now += 1.25 / rate
    again = slots.available()
    assert again is not None
    assert again[0] == 1


def test_a_request_that_ends_empty_again_and_again_gathers_no_tokens() -> None:
    now = 0.0
    slots = RatedSlots(1000, 10**9, 10, rate=10, clock=lambda: now)
    for _ in range(1_000):
        now += 0.3
        planned = slots.available()
        assert planned is not None
        assert planned[0] <= 10 * BURST
        slots.ask(*planned)
        slots.withdraw(*planned)
