"""The adaptive number of slots, and the spacing of attempts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.inference.limits import SEARCH, AdaptiveLimit


def settle(limit: AdaptiveLimit, latency_of: dict[int, float], samples: int = 400) -> list[int]:
    """Feed latencies that depend on the number of slots; the slots seen on the way."""
    seen = []
    for _ in range(samples):
        limit.measured(latency_of[limit.slots], 32, full=True)
        seen.append(limit.slots)
    return seen


def test_it_grows_while_latency_stays() -> None:
    limit = AdaptiveLimit()
    assert limit.slots == 2
    settle(limit, dict.fromkeys(range(1, 9), 0.010))
    assert limit.slots == 8


def test_it_stays_small_when_more_slots_only_wait() -> None:
    limit = AdaptiveLimit()
    # One instance: requests queue behind each other.
    seen = settle(limit, {slots: 0.010 * slots for slots in range(1, 9)})
    assert max(seen[50:]) <= 4
    assert min(seen) >= 1


def test_a_reference_taken_while_our_own_requests_queued_does_not_stay() -> None:
    limit = AdaptiveLimit(start=8)
    latency = {slots: 0.010 * slots for slots in range(1, 9)}
    seen = settle(limit, latency, samples=SEARCH + 100)
    assert max(seen[:SEARCH]) == 8
    assert max(seen[SEARCH:]) <= 4
    assert max(settle(limit, latency, samples=10 * SEARCH)) <= 4


def test_it_follows_the_number_of_instances() -> None:
    limit = AdaptiveLimit()
    settle(limit, {slots: 0.010 * max(1.0, slots / 4) for slots in range(1, 9)})
    assert 4 <= limit.slots <= 8


def test_it_shrinks_when_the_server_becomes_slow() -> None:
    limit = AdaptiveLimit()
    settle(limit, dict.fromkeys(range(1, 9), 0.010), samples=100)
    settle(limit, dict.fromkeys(range(1, 9), 0.100), samples=30)
    assert limit.slots <= 3


def test_it_forgets_how_fast_the_server_once_was() -> None:
    limit = AdaptiveLimit()
    settle(limit, dict.fromkeys(range(1, 9), 0.010))
    settle(limit, dict.fromkeys(range(1, 9), 0.100), samples=SEARCH)
    assert limit.slots == 8


def test_slots_that_were_free_say_nothing() -> None:
    limit = AdaptiveLimit()
    for _ in range(100):
        limit.measured(0.010, 1, full=False)
    assert limit.slots == 2


def test_a_fuller_request_is_not_a_slower_server() -> None:
    limit = AdaptiveLimit()
    for turn in range(200):
        items = 1 if turn % 2 else 64
        limit.measured(0.001 * items, items, full=True)
    assert limit.slots == 8


# --- slow models --------------------------------------------------------------------------------


def test_a_slow_model_gets_no_more_slots_than_it_has_instances() -> None:
    limit = AdaptiveLimit()
    limit.instances = 2
    settle(limit, dict.fromkeys(range(1, 9), 0.010))
    assert limit.slots == 8
    settle(limit, dict.fromkeys(range(1, 9), 5.0), samples=1)
    assert limit.slots == 2
    settle(limit, dict.fromkeys(range(1, 9), 0.010), samples=1)
    assert limit.slots > 2, "one slow request is a slow request"


def test_before_anything_is_known_there_is_a_slot_an_instance() -> None:
    limit = AdaptiveLimit()
    limit.instances = 1
    assert limit.slots == 1
    limit.measured(0.010, 1, full=True)
    assert limit.slots == 2


def test_requests_that_nobody_waits_for_halve_the_slots_and_then_the_time_of_one() -> None:
    limit = AdaptiveLimit(start=4)
    capacities = []
    for _ in range(6):
        limit.given_up(60.0)
        capacities.append(limit.capacity)
    assert capacities == [2, 1, 0.5, 0.25, 0.125, 0.125]
    assert limit.slots == 1


def test_they_grow_again_only_while_answers_come_much_sooner() -> None:
    limit = AdaptiveLimit()
    for _ in range(3):
        limit.given_up(60.0)
    assert limit.capacity == 0.25
    settle(limit, dict.fromkeys(range(1, 9), 40.0), samples=50)
    assert limit.capacity == 0.25
    settle(limit, dict.fromkeys(range(1, 9), 10.0), samples=10)
    assert limit.capacity >= 1


def test_callers_with_other_reasons_say_nothing_of_the_model() -> None:
    limit = AdaptiveLimit()
    for _ in range(10):
        limit.given_up(0.5)
    assert limit.capacity == 2
    fixed = AdaptiveLimit(minimum=3, maximum=3, start=3)
    fixed.given_up(60.0)
    assert fixed.capacity == 3


@given(
    st.integers(1, 3),
    st.integers(0, 3),
    st.integers(0, 8),
    st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 1000), st.booleans()), max_size=200),
)
def test_slots_stay_in_range_and_depend_on_samples_alone(
    minimum: int, more: int, room: int, samples: list[tuple[float, int, bool]]
) -> None:
    start, maximum = minimum + more, minimum + more + room
    limits = [AdaptiveLimit(minimum=minimum, maximum=maximum, start=start) for _ in range(2)]
    for seconds, items, full in samples:
        for limit in limits:
            limit.measured(seconds, items, full=full)
            assert minimum <= limit.slots <= maximum
        assert limits[0].statistics() == limits[1].statistics()


def test_a_range_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="minimum <= start"):
        AdaptiveLimit(minimum=3, start=2)
