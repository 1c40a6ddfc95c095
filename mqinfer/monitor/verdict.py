"""Verdict: what is said of one series, first in words, then in numbers; pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mqinfer.monitor.bins import middle
from mqinfer.monitor.distance import Distance, jsd, psi, wasserstein, wilson
from mqinfer.monitor.reference import Reference

SHOWN: Final = 5  # keys that are named


class Word(enum.StrEnum):
    """What is said of a series."""

    CHANGED = "changed"
    STEADY = "steady"
    FEW = "too few rows"
    NONE = "no reference"


@dataclass(frozen=True, slots=True)
class Change:
    """One key.

    Attributes:
        key: the label or bin.
        before: its share in the reference.
        after: its share now.
        low: lower end of Wilson's 95 % interval of the share now.
        high: its upper end.
        part: what it adds to the PSI.
    """

    key: str
    before: float
    after: float
    low: float
    high: float
    part: float

    def __str__(self) -> str:
        return (
            f"{self.key} {self.before:.1%} -> {self.after:.1%} ({self.low:.1%} to {self.high:.1%})"
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of a series.

    Attributes:
        word: in short. Whether it changed, the alarm says; a distance alone never does.
        rows: of the window.
        reference_rows: of the reference.
        psi: how far apart; None without a reference or rows.
        jsd: the same in bits.
        moved: how far a number moved on the average, in its own unit.
        changes: the keys that add most, the largest first.
    """

    word: Word
    rows: int
    reference_rows: int = 0
    psi: Distance | None = None
    jsd: Distance | None = None
    moved: float | None = None
    changes: tuple[Change, ...] = ()

    def __str__(self) -> str:
        if self.word is Word.NONE:
            return f"{self.word}: {self.rows:,} rows, accept a window or promote a run"
        if self.psi is None or self.word is Word.FEW:
            return f"{self.word}: {self.rows:,} beside {self.reference_rows:,} of the reference"
        told = f"{self.word}: PSI {self.psi.value:.3f}, chance alone {self.psi.expected:.3f}"
        return f"{told}, of {self.rows:,} rows" + "".join(f"; {one}" for one in self.changes)


def verdict(
    counts: Mapping[str, int], reference: Reference | None, *, alarm: bool = False
) -> Verdict:
    """What is said of the counts of a window.

    Args:
        counts: by key.
        reference: None where none was accepted.
        alarm: whether one stands.
    """
    rows = sum(counts.values())
    if reference is None:
        return Verdict(Word.NONE, rows)
    if not rows:
        return Verdict(Word.CHANGED if alarm else Word.FEW, 0, reference.rows)
    now = reference.folded(counts)
    # A key that neither has is none of the K.
    used = [
        place for place, pair in enumerate(zip(now, reference.counts, strict=True)) if any(pair)
    ]
    keys = [reference.keys[place] for place in used]
    window, before = ([one[place] for place in used] for one in (now, reference.counts))
    far = psi(window, before)
    word = Word.CHANGED if alarm else Word.STEADY if far.enough else Word.FEW
    ranked = sorted(range(len(keys)), key=lambda place: -far.parts[place])[:SHOWN]
    changes = []
    for place in ranked:
        low, high = wilson(window[place], rows)
        share, after = before[place] / reference.rows, window[place] / rows
        changes.append(Change(keys[place], share, after, float(low), float(high), far.parts[place]))
    return Verdict(
        word, rows, reference.rows, far, jsd(window, before), _moved(keys, window, before),
        tuple(changes),
    )  # fmt: skip


def _moved(keys: list[str], window: list[int], before: list[int]) -> float | None:
    """The Wasserstein distance where the keys are bins of numbers; else None."""
    places = [middle(key) for key in keys]
    known = [place for place, at in enumerate(places) if at is not None]
    if len(known) < 2:
        return None
    return wasserstein(
        [window[place] for place in known],
        [before[place] for place in known],
        [at for at in places if at is not None],
    )
