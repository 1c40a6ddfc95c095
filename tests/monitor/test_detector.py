"""The detector: exact, a pure function of closed steps, and within its budget."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqinfer.monitor.detector import (
    ALTERNATIVES,
    UP,
    Budget,
    Detector,
    backtest,
    watch,
)
from mqinfer.monitor.follow import Follower, Series
from mqinfer.monitor.reference import STEP, STEPS_AN_HOUR, Reference, reference_of

LOW, HIGH, PHI = [0.2, 0.0, 0.1], [0.5, 1.0, 0.4], [1.0, 1.0, 2.0]
REFERENCE = Reference(("a", "b", "c"), (350, 400, 250), tuple(LOW), tuple(HIGH), tuple(PHI))
tables = st.lists(st.tuples(*[st.integers(0, 20)] * 3), min_size=1, max_size=30)


def by_hand(table: list[tuple[int, ...]]) -> float:
    """The evidence as the formulas say it, one number after the other."""
    found = []
    for key, (low, high, phi) in enumerate(zip(LOW, HIGH, PHI, strict=True)):
        for bound, down in ((high, False), (1 - low, True)):
            if not 0 < bound < 1:
                continue
            for beyond in ALTERNATIVES:
                a = bound + (1 - bound) * beyond
                m = 0.0
                for counts in table:
                    n = sum(counts)
                    k = n - counts[key] if down else counts[key]
                    gain = k * math.log(a / bound) + (n - k) * math.log((1 - a) / (1 - bound))
                    m = (m + 1) * math.exp(gain / phi)
                found.append(m)
    return sum(found) / len(found)


@given(tables)
def test_it_is_the_formula(table: list[tuple[int, ...]]) -> None:
    detector = Detector.of(REFERENCE)
    for counts in table:
        detector.advance(counts)
    assert float(detector.evidence()) == pytest.approx(by_hand(table), rel=1e-9)


@given(tables, st.integers(0, 30))
def test_from_a_checkpoint_it_comes_to_the_same(table: list[tuple[int, ...]], at: int) -> None:
    whole, first, second = (Detector.of(REFERENCE) for _ in range(3))
    for counts in table:
        whole.advance(counts)
    for counts in table[:at]:
        first.advance(counts)
    second.m = first.m.copy()
    for counts in table[at:]:
        second.advance(counts)
    assert (second.m == whole.m).all()


@given(tables, st.integers(1, 50))
def test_steps_without_rows_may_be_left_out(table: list[tuple[int, ...]], gap: int) -> None:
    told, left_out = Detector.of(REFERENCE), Detector.of(REFERENCE)
    steps: list[tuple[int, Any]] = [(number * gap, counts) for number, counts in enumerate(table)]
    empty = dict.fromkeys(range(steps[-1][0] + 1), (0, 0, 0))
    watch(told, sorted({**empty, **dict(steps)}.items()), math.inf)
    watch(left_out, steps, math.inf)
    assert left_out.m == pytest.approx(told.m)


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_many_at_once_are_each_by_itself(seed: int) -> None:
    table = np.random.default_rng(seed).poisson(2, (40, 3, 5))
    low, high, phi = (np.tile(np.array(one)[:, None], (1, 5)) for one in (LOW, HIGH, PHI))
    many, quick = Detector(low, high, phi), Detector(low, high, phi, np.float32)
    single = [Detector.of(REFERENCE) for _ in range(5)]
    for counts in table:
        many.advance(counts)
        quick.advance(counts)
        for one, own in zip(single, counts.T, strict=True):
            one.advance(own)
    assert many.evidence() == pytest.approx([float(one.evidence()) for one in single])
    assert quick.evidence() == pytest.approx(many.evidence(), rel=1e-3)


def test_the_mean_of_the_evidence_is_at_most_the_steps() -> None:
    """What the budget rests on: at the very edge of what is allowed, rows in clusters."""
    rng = np.random.default_rng(1)
    streams, steps, cluster = 20_000, 40, 3
    low, high = np.zeros((2, streams)), np.tile([[0.3], [1.0]], (1, streams))
    detector = Detector(low, high, np.full((2, streams), cluster))
    total = np.zeros(streams)
    for step in range(1, steps + 1):
        n = cluster * rng.poisson(1, streams)
        k = cluster * rng.binomial(n // cluster, 0.3)
        total = detector.advance(np.stack([k, n - k]))
        error = 5 * total.std() / math.sqrt(streams)
        assert total.mean() <= step + error, step


def test_evidence_has_no_end_but_a_bound() -> None:
    detector = Detector.of(REFERENCE)
    for _ in range(3):
        evidence = detector.advance([10**6, 0, 0])
    assert math.isfinite(evidence)
    assert evidence > Budget().threshold()


def test_the_budget_is_shared_by_the_series() -> None:
    assert Budget().threshold() == pytest.approx(5.184e6)
    assert Budget().threshold(4) == 4 * Budget().threshold()
    assert Budget(chance=0.5, days=1).threshold() == 17_280


@pytest.mark.parametrize(("after", "direction"), [(0.8, UP), (0.02, 1 - UP)])
def test_an_alarm_says_what_changed_and_since_when(after: float, direction: int) -> None:
    rng = np.random.default_rng(2)
    shares = [[0.35, 0.4, 0.25]] * 200 + [[after, 0.75 - after * 0.75, 0.25 - after * 0.25]] * 400
    steps: list[tuple[int, Any]] = [
        (number, rng.multinomial(5, share)) for number, share in enumerate(shares)
    ]
    first = watch(Detector.of(REFERENCE), steps, Budget().threshold())[0]
    assert 200 < first.step < 400
    assert first.evidence >= Budget().threshold()
    assert (first.suspicion.key, first.suspicion.direction) == (0, direction)
    followed = Follower(Series("t", "label"), REFERENCE, Budget().threshold())
    named = dict(steps)
    followed.take([(at, dict(zip("abc", map(int, named[at]), strict=True))) for at in named])
    (episode,) = followed.following().episodes
    assert episode.key == "a"
    assert episode.rising == (direction == UP)
    assert episode.alarmed == (first.step + 1) * STEP
    assert 185 <= episode.began // STEP <= 215


def test_it_begins_anew_after_an_alarm() -> None:
    steps = [(number, (9, 1, 0)) for number in range(300)]
    alarms = watch(Detector.of(REFERENCE), steps, 1e6)
    assert len(alarms) > 3
    gaps = np.diff([alarm.step for alarm in alarms])
    assert gaps.min() == gaps.max()


def test_a_reference_is_held_against_itself_before_it_is_accepted() -> None:
    rng = np.random.default_rng(3)
    hours = 24 * STEPS_AN_HOUR
    good = [
        (number, {"a": int(a), "b": int(b)})
        for number, (a, b) in enumerate(rng.poisson([1.0, 2.0], (hours, 2)))
    ]
    assert backtest(good, Budget().threshold()) == []
    # A day with one hour of which half is something else: it says that it would have alarmed.
    strange = {number: {"a": 0, "b": 3, "new": 5} for number in range(3 * 360, 4 * 360)}
    found = backtest(sorted({**dict(good), **strange}.items()), Budget().threshold())
    assert found
    assert all(3 * 360 <= alarm.step < 4 * 360 for alarm in found)
    assert backtest(good[:100], Budget().threshold()) is None
    assert reference_of(good).rows > 10_000
