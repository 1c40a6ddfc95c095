"""Advice: what follows from an alarm and an accuracy, in words; "when should I retrain?"; pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from mqinfer.monitor.accuracy import CAVEAT, Estimate
from mqinfer.monitor.bins import MISSING
from mqinfer.monitor.reference import UNSEEN, Reference
from mqinfer.monitor.verdict import Verdict

UNSEEN_TOO_MANY: Final = 0.05  # of the rows have labels that the reference does not know
LOOK_AT: Final = 200  # rows to label, for an accuracy to about 7 points


class Word(enum.StrEnum):
    """The answer in a word."""

    NO = "no"
    LOOK = "look"
    FIX = "fix the data"
    RETRAIN = "retrain"
    UNKNOWN = "cannot say"


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do.

    Attributes:
        word: in short.
        why: in a line.
        what: to do next, in a line.
    """

    word: Word
    why: str
    what: str = ""

    def __str__(self) -> str:
        return f"{self.word}: {self.why}{f'; {self.what}' if self.what else ''}"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one model.

    Attributes:
        alarm: whether one stands.
        estimates: of the last windows, the newest last; counted ones where there is truth.
        target: the accuracy that is wanted; None: nobody said.
        unseen: the share of rows, since the change began, whose label the reference does not know.
        step: what happened where the change began (a deployment, an alias that moved), or "".
        nulls: the share of rows without a label, now.
        nulls_before: in the reference.
        worst: labels that changed most.
    """

    alarm: bool
    estimates: Sequence[Estimate] = ()
    target: float | None = None
    unseen: float = 0.0
    step: str = ""
    nulls: float = 0.0
    nulls_before: float = 0.0
    worst: Sequence[str] = ()


def retrain(facts: Facts) -> Advice:
    """Whether a model is to be trained again, by the first of the rules that applies.

    The order is: a fault of the data or of a deployment before anything that the model could learn;
    then what is known to be bad; then what is not known.
    """
    labels = f": {', '.join(facts.worst)}" if facts.worst else ""
    if facts.alarm and facts.step:
        return Advice(
            Word.FIX, f"it changed at a step: {facts.step}", "go back, or compare the two"
        )
    if facts.nulls > facts.nulls_before + UNSEEN_TOO_MANY:
        return Advice(
            Word.FIX,
            f"{facts.nulls:.1%} of the rows have no label, {facts.nulls_before:.1%} before",
            "see what they were made of",
        )
    if facts.unseen > UNSEEN_TOO_MANY:
        return Advice(
            Word.RETRAIN,
            f"{facts.unseen:.1%} of the rows have a label that the reference does not know",
            f"label examples of what is new{labels}",
        )
    if not facts.estimates or facts.target is None:
        missing = "no truth and no labelled run" if not facts.estimates else "no target was said"
        what = f"label {LOOK_AT} of the newest rows{labels}" if not facts.estimates else "--target"
        return Advice(Word.UNKNOWN, missing, what)
    newest = facts.estimates[-1]
    told = f"accuracy {newest.value:.1%} ({newest.low:.1%} to {newest.high:.1%})"
    told += ", counted" if newest.true else f", estimated {CAVEAT}"
    below = [one.high < facts.target for one in facts.estimates[-2:]]
    if len(below) == 2 and all(below):
        return Advice(
            Word.RETRAIN,
            f"below {facts.target:.1%} in two windows: {told}",
            f"with labels of what changed most{labels}",
        )
    if facts.alarm or any(below):
        return Advice(
            Word.LOOK,
            f"{'an alarm stands' if facts.alarm else f'below {facts.target:.1%} once'}; {told}",
            f"label {LOOK_AT} rows, or replay the newest 1,000 through another version{labels}",
        )
    return Advice(Word.NO, f"no alarm; {told}")


def of_label(
    facts: Facts,
    told: Verdict,
    counts: Mapping[str, int],
    since: Mapping[str, int],
    reference: Reference,
) -> Advice:
    """The advice about a label, with what its counts say beside what else is known.

    Args:
        facts: what else is known.
        told: of the window.
        counts: of the window, by label.
        since: the same since the alarm's change began, however long ago; empty without an alarm.
        reference: that they are held against.
    """
    rows = max(told.rows, 1)
    folded = dict(zip(reference.keys, reference.folded(since), strict=True))
    before = dict(zip(reference.keys, reference.counts, strict=True))
    return retrain(
        replace(
            facts,
            unseen=folded[UNSEEN] / max(sum(folded.values()), 1),
            nulls=counts.get(MISSING, 0) / rows,
            nulls_before=before.get(MISSING, 0) / reference.rows,
            worst=[change.key for change in told.changes[:3]],
        )
    )
