"""References: what is allowed follows from the shares of hours, not from chance or clusters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from mqinfer.errors import ConfigurationError
from mqinfer.monitor.reference import (
    OTHER,
    STEPS_AN_HOUR,
    TOP,
    UNSEEN,
    allowed,
    overdispersion,
    reference_of,
)

DAY = 24 * STEPS_AN_HOUR
SHARES = np.array([0.5, 0.3, 0.2])


def steps(counts: Mapping[str, int], number: int = 10) -> list[tuple[int, Mapping[str, int]]]:
    return [(step, counts) for step in range(number)]


def day(rows: float, seed: int = 1) -> Any:
    return np.random.default_rng(seed).poisson(rows * SHARES, (DAY, 3))


def test_the_most_frequent_keys_the_others_and_what_is_unseen() -> None:
    counts = {f"k{number:02}": 100 - number for number in range(60)}
    reference = reference_of(steps(counts))
    assert len(reference.keys) == TOP + 2
    assert reference.keys[:2] == ("k00", "k01")
    assert reference.keys[-2:] == (OTHER, UNSEEN)
    assert reference.rows == 10 * sum(counts.values())
    folded = dict(
        zip(reference.keys, reference.folded({"k00": 1, "k59": 2, "new": 4}), strict=True)
    )
    assert {key: n for key, n in folded.items() if n} == {"k00": 1, OTHER: 2, UNSEEN: 4}
    # A label that is called like one of the two is not taken for it.
    assert reference.folded({OTHER: 3})[-2:] == (0, 3)


def test_too_few_rows_are_refused_with_what_would_do() -> None:
    with pytest.raises(ConfigurationError, match="150 rows are too few for a reference: 200"):
        reference_of(steps({"a": 15}))


def test_of_many_rows_little_more_than_the_share_is_allowed() -> None:
    low, high, phi = allowed(np.arange(DAY), day(50))
    assert (high - SHARES < 0.026).all()
    assert (high - SHARES > 0.02).all()
    assert (SHARES - low < 0.026).all()
    assert (phi < 1.35).all()


def test_of_few_rows_an_hour_chance_alone_allows_little() -> None:
    # 36 rows an hour: shares of hours vary by 0.08 (one standard deviation) by chance.
    found = [allowed(np.arange(DAY), day(0.1, seed)) for seed in range(20)]
    beyond = np.array([high - SHARES for _, high, _ in found])
    # Wilson's bound of 864 rows is 0.055; the 99th percentile of the raw hours would be 0.17.
    assert np.median(beyond, axis=0).max() < 0.12
    assert (beyond > 0.02).mean() > 0.97


def test_a_cycle_of_the_day_is_allowed_and_is_no_overdispersion() -> None:
    rng = np.random.default_rng(3)
    numbers = np.arange(DAY)
    first = 0.3 + 0.2 * np.sin(2 * np.pi * numbers / DAY)
    n = rng.poisson(20, DAY)
    k = rng.binomial(n, first)
    low, high, phi = allowed(numbers, np.stack([k, n - k], axis=1))
    assert 0.5 < high[0] < 0.54
    assert 0.06 < low[0] < 0.1
    assert (phi < 1.4).all()


def test_rows_that_come_together_are_seen_within_a_step_and_beyond_it() -> None:
    rng = np.random.default_rng(4)
    numbers = np.arange(DAY)
    once = np.stack([8 * rng.poisson(0.5, DAY), 8 * rng.poisson(0.5, DAY)], axis=1)
    assert overdispersion(numbers, once) == pytest.approx([8, 8], rel=0.15)
    # The same eight, one in each of eight steps: a step has one of them, and looks independent.
    spread = np.sum([np.roll(once // 8, shift, axis=0) for shift in range(8)], axis=0)
    assert (overdispersion(numbers, spread) > 5).all()
    assert overdispersion(numbers, day(2)) == pytest.approx([1, 1, 1], abs=0.35)


def test_steps_may_come_in_any_order_and_those_without_rows_be_left_out() -> None:
    rng = np.random.default_rng(5)
    made = [
        (number, {"a": int(rng.poisson(3)), "b": 1}) for number in range(0, 3 * STEPS_AN_HOUR, 3)
    ]
    assert reference_of(made) == reference_of(made[::-1])
    empty: list[tuple[int, Mapping[str, int]]] = [(1, {}), (2, {})]
    assert reference_of([*made, *empty]).counts == reference_of(made).counts
