"""Distances: what they are worth without a change is subtracted; intervals cover what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.monitor import bins
from mqinfer.monitor.distance import jsd, psi, wasserstein, wilson
from tests.support.bins import confidence_key, number_key

counts = st.lists(st.integers(0, 10_000), min_size=2, max_size=8)


def test_the_formulas() -> None:
    # By hand: p = 50.5/101, 50.5/101; q = 90.5/101, 10.5/101.
    far = psi([50, 50], [90, 10])
    p, q = 0.5, 90.5 / 101
    assert far.raw == pytest.approx((p - q) * math.log(p / q) + (q - p) * math.log(p / (1 - q)))
    assert far.expected == pytest.approx(2 / 100)
    assert far.value == far.raw - far.expected
    # The whole bit, of shares that have nothing in common.
    assert jsd([10**9, 0], [0, 10**9]).raw == pytest.approx(1.0, abs=1e-6)


@given(counts, st.data())
def test_they_are_symmetric_not_negative_and_nothing_of_the_same(
    one: list[int], data: st.DataObject
) -> None:
    other = data.draw(st.lists(st.integers(0, 10_000), min_size=len(one), max_size=len(one)))
    for distance in (psi, jsd):
        assert distance(one, other).raw == pytest.approx(distance(other, one).raw)
        assert distance(one, other).raw >= -1e-12
        assert distance(one, one).raw == 0
        assert distance(one, other).value >= 0
    assert jsd(one, other).raw <= 1 + 1e-9


@pytest.mark.parametrize(("n", "m"), [(500, 500), (2_000, 20_000)])
def test_without_a_change_they_are_what_is_expected(n: int, m: int) -> None:
    rng = np.random.default_rng(1)
    p = [0.4, 0.25, 0.15, 0.1, 0.07, 0.03]
    pairs = [(rng.multinomial(n, p), rng.multinomial(m, p)) for _ in range(2_000)]
    for distance in (psi, jsd):
        raw = float(np.mean([distance(*pair).raw for pair in pairs]))
        assert raw == pytest.approx(distance(*pairs[0]).expected, rel=0.08)


def test_too_few_rows_are_told() -> None:
    assert not psi([1, 2, 1, 0], [5_000, 5_000, 1, 1]).enough
    assert psi([100, 200, 100, 10], [5_000, 5_000, 1, 1]).enough
    assert not psi([0, 0], [5, 5]).enough


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30), st.floats(-50, 50))
def test_a_shift_is_as_far_as_it_goes(places: list[float], by: float) -> None:
    both = [*places, *(place + by for place in places)]
    here = [1] * len(places) + [0] * len(places)
    there = here[::-1]
    found = wasserstein(there, here, both)
    assert found is not None
    assert found == pytest.approx(abs(by), abs=1e-6)
    assert wasserstein([0, 0], [1, 1], [1.0, 2.0]) is None


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.97])
def test_wilson_covers_what_it_says(p: float) -> None:
    rng = np.random.default_rng(2)
    found = rng.binomial(300, p, 20_000)
    low, high = wilson(found, 300)
    covered = float(((low <= p) & (p <= high)).mean())
    assert 0.92 < covered < 0.985
    assert wilson(0, 0) == (pytest.approx(0, abs=1e-6), pytest.approx(1, abs=1e-6))


@given(st.floats(allow_nan=False, min_value=1e-12, max_value=1e12), st.booleans())
def test_a_number_lies_in_its_bin(size: float, negative: bool) -> None:
    value = -size if negative else size
    middle = bins.middle(number_key(value))
    assert middle is not None
    assert math.copysign(1, middle) == math.copysign(1, value)
    eighth = 2 ** (1 / 8) * (1 + 1e-9)
    assert 1 / eighth <= middle / value <= eighth


@given(st.floats(0, 1))
def test_a_confidence_lies_in_its_bin(value: float) -> None:
    middle = bins.middle(confidence_key(value))
    assert middle is not None
    assert abs(middle - value) <= 0.5 / bins.CONFIDENCE_BINS + 1e-9


def test_what_has_no_place_is_a_key_of_its_own() -> None:
    assert confidence_key(math.nan) == number_key(math.nan) == "nan"
    assert confidence_key(1.2) == confidence_key(-math.inf) == "outside"
    assert confidence_key(1.0) == "0.95"
    assert number_key(0.0) == number_key(-0.0) == "0"
    assert number_key(math.inf) == number_key(1e300) == "+255"
    assert number_key(-1e-300) == "--256"
    assert [bins.middle(key) for key in ("nan", "outside", "NULL", "cat")] == [None] * 4
