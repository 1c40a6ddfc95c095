"""The one rule for waits: grows, has a bound, and knows no last attempt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer import Backoff
from mqinfer.backoff import Attempts
from mqinfer.errors import WiringError


def test_it_grows_to_its_maximum() -> None:
    backoff = Backoff(initial=1, factor=3, maximum=20, jitter=0)
    assert [backoff.delay(attempt, 0.7) for attempt in (1, 2, 3, 4, 5)] == [1, 3, 9, 20, 20]


@given(
    st.integers(1, 10**9),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1e6),
    st.one_of(st.integers(1, 10**6), st.floats(1, 1e300)),
    st.floats(0.001, 1e300),
    st.floats(0, 1),
)
def test_any_attempt_has_a_bounded_delay(
    attempt: int, chance: float, initial: float, factor: float, maximum: float, jitter: float
) -> None:
    backoff = Backoff(initial=initial, factor=factor, maximum=maximum, jitter=jitter)
    assert 0 <= backoff.delay(attempt, chance) <= maximum * (1 + jitter)
    assert backoff.delay(attempt) <= backoff.delay(attempt + 1) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"initial": -1}, "initial=-1 must be at least 0"),
        ({"factor": 0.5}, "factor=0.5 must be at least 1"),
        ({"maximum": float("nan")}, "maximum=nan must be at least 0"),
        ({"jitter": 2}, "jitter=2 must be 0 to 1"),
    ],
)
def test_what_cannot_be_waited_for_is_refused(options: dict[str, float], says: str) -> None:
    with pytest.raises(WiringError, match=says):
        Backoff(**options)


def test_the_first_attempt_is_at_once() -> None:
    attempts = Attempts(Backoff(initial=0.1, maximum=1.0))
    assert [attempts.next() for _ in range(7)] == [0.0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    attempts.reset()
    assert attempts.next() == 0.0


@given(st.integers(0, 10**9))
def test_an_outage_may_last_for_weeks(count: int) -> None:
    attempts = Attempts(Backoff(initial=0.1, maximum=1.0))
    attempts.count = count
    assert 0.0 <= attempts.next() <= 1.0
