"""Verdicts, accuracy and advice: the words follow from the numbers, rule by rule."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from mqinfer.monitor import advice, verdict
from mqinfer.monitor.accuracy import CAVEAT, Estimate, estimated
from mqinfer.monitor.advice import Facts, retrain
from mqinfer.monitor.reference import OTHER, UNSEEN, Reference
from mqinfer.monitor.verdict import Word

REFERENCE = Reference(
    ("cat", "dog", OTHER, UNSEEN),
    (6_000, 4_000, 0, 0),
    (0.55, 0.35, 0.0, 0.0),
    (0.65, 0.45, 0.02, 0.02),
    (1.0, 1.0, 1.0, 1.0),
)
GOOD = Estimate(0.95, 0.93, 0.97, 1_000, 500)
BAD = Estimate(0.85, 0.82, 0.88, 1_000, 500)


def test_what_is_said_of_a_series() -> None:
    none = verdict.verdict({"cat": 3}, None)
    assert none.word is Word.NONE
    assert "accept a window" in str(none)
    few = verdict.verdict({"cat": 3, "dog": 1}, REFERENCE)
    assert str(few) == "too few rows: 4 beside 10,000 of the reference"
    steady = verdict.verdict({"cat": 590, "dog": 410}, REFERENCE)
    assert steady.word is Word.STEADY
    assert steady.psi is not None
    assert steady.psi.value == 0
    # A distance alone says nothing but how far: whether it changed, the alarm says.
    far = verdict.verdict({"cat": 100, "bird": 900}, REFERENCE)
    assert far.word is Word.STEADY
    alarmed = verdict.verdict({"cat": 100, "bird": 900}, REFERENCE, alarm=True)
    assert alarmed.word is Word.CHANGED
    assert [change.key for change in alarmed.changes] == [UNSEEN, "dog", "cat"]
    assert str(alarmed.changes[2]) == "cat 60.0% -> 10.0% (8.3% to 12.0%)"
    assert verdict.verdict({}, REFERENCE, alarm=True).word is Word.CHANGED


def test_numbers_also_say_how_far_they_moved() -> None:
    keys = ("+12", "+16", "nan", OTHER, UNSEEN)  # 8 and 16, and a bit
    reference = Reference(keys, (500, 500, 1, 0, 0), (0.0,) * 5, (1.0,) * 5, (1.0,) * 5)
    found = verdict.verdict({"+12": 250, "+16": 750}, reference)
    apart = 16 * 2 ** (1 / 8) - 8 * 2 ** (1 / 8)
    assert found.moved == pytest.approx(apart / 4)
    assert verdict.verdict({"cat": 500, "dog": 500}, REFERENCE).moved is None


def test_accuracy_follows_the_confidence_and_its_interval_covers_it() -> None:
    rng = np.random.default_rng(1)
    bins, right = ["0.55", "0.75", "0.95"], np.array([0.55, 0.75, 0.97])
    covered = 0
    for _ in range(500):
        shown = rng.multinomial(600, [0.2, 0.3, 0.5])
        hits = rng.binomial(shown, right)
        labelled = {key: (int(n), int(k)) for key, n, k in zip(bins, shown, hits, strict=True)}
        shares = np.array([0.6, 0.3, 0.1])  # it is less sure now
        now = rng.multinomial(2_000, shares)
        found = estimated(dict(zip(bins, map(int, now), strict=True)), labelled)
        assert found is not None
        assert (found.rows, found.labelled, found.known) == (2_000, 600, 1.0)
        covered += found.low <= float(shares @ right) <= found.high
    assert 0.9 < covered / 500 < 0.985


def test_what_has_no_truth_is_left_out_and_told() -> None:
    found = estimated({"0.95": 300, "0.05": 100}, {"0.95": (99, 99), "0.50": (5, 1)})
    assert found is not None
    assert (found.known, found.rows, found.labelled) == (0.75, 300, 99)
    assert found.value == 0.995
    assert estimated({"0.05": 100}, {"0.95": (99, 99)}) is None
    assert estimated({}, {}) is None


@pytest.mark.parametrize(
    ("more", "word", "why"),
    [
        ({}, "no", "no alarm; accuracy 95.0% (93.0% to 97.0%)"),
        ({"alarm": True}, "look", "an alarm stands"),
        ({"estimates": [GOOD, BAD]}, "look", "below 90.0% once"),
        ({"estimates": [BAD, BAD]}, "retrain", "below 90.0% in two windows"),
        ({"estimates": [BAD, GOOD]}, "look", "below 90.0% once"),
        ({"unseen": 0.06}, "retrain", "6.0% of the rows have a label"),
        ({"alarm": True, "step": "version 3 at 12:00"}, "fix the data", "version 3 at 12:00"),
        ({"nulls": 0.2, "nulls_before": 0.1}, "fix the data", "20.0% of the rows have no label"),
        ({"nulls": 0.2, "unseen": 0.5}, "fix the data", "no label"),
        ({"estimates": []}, "cannot say", "no truth and no labelled run"),
        ({"estimates": [], "alarm": True}, "cannot say", "no truth"),
        ({"target": None}, "cannot say", "no target"),
    ],
)
def test_when_to_retrain(more: dict[str, Any], word: str, why: str) -> None:
    plain: dict[str, Any] = {"alarm": False, "estimates": [GOOD, GOOD], "target": 0.9}
    found = retrain(Facts(**{**plain, **more}))
    assert found.word == word
    assert why in found.why
    assert found.what or found.word is advice.Word.NO


def test_an_estimate_says_what_it_holds_under_and_truth_does_not() -> None:
    assert CAVEAT in retrain(Facts(False, [GOOD], 0.9)).why
    counted = dataclasses.replace(GOOD, true=True)
    assert "counted" in retrain(Facts(False, [counted], 0.9)).why
    told = retrain(Facts(True, [BAD, BAD], 0.9, worst=["rust", "scab"]))
    assert told.what.endswith(": rust, scab")
