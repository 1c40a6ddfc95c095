"""Lines: every label of a series beside its reference, what speaks loudest first; pure.

A reference has its 50 most frequent keys apart; all others are one there, and what it has never
seen is another. So a label that is among these has what they have together: its group's part of
the distance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mqinfer.monitor.distance import psi, wilson
from mqinfer.monitor.reference import OTHER, UNSEEN, Reference

_Z: Final = 1.96  # standard errors of 95 %, two-sided


@dataclass(frozen=True, slots=True)
class Tally:
    """What was counted of one key.

    Attributes:
        rows: that have it.
        numbers: of these, those with a number beside it: of a label, its confidence.
        total: their sum.
        squares: and that of their squares.
    """

    rows: int = 0
    numbers: int = 0
    total: float = 0.0
    squares: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.rows + other.rows,
            self.numbers + other.numbers,
            self.total + other.total,
            self.squares + other.squares,
        )

    def mean(self) -> tuple[float, float] | None:
        """The mean of the numbers, and half its interval of 95 %; None without numbers."""
        if not self.numbers:
            return None
        mean = self.total / self.numbers
        if self.numbers == 1:
            return mean, math.inf
        variance = max(0.0, self.squares / self.numbers - mean * mean)
        # Of the sample, so that two equal numbers do not look certain of more than they are.
        variance *= self.numbers / (self.numbers - 1)
        return mean, _Z * math.sqrt(variance / self.numbers)


@dataclass(frozen=True, slots=True)
class Line:
    """One key.

    Attributes:
        key: the label or bin.
        rows: of the window.
        share: of the window's rows.
        low: lower end of Wilson's 95 % interval of the share.
        high: its upper end.
        mean: of the numbers beside it, such as the label's confidence; None without any.
        half: of the mean's interval of 95 %.
        before: its share in the reference; None where that does not have it apart, or is none.
        part: what it, or its group, adds to the PSI; None without a reference.
        group: `OTHER` or `UNSEEN`, where the reference does not have it apart; or "".
    """

    key: str
    rows: int
    share: float
    low: float
    high: float
    mean: float | None = None
    half: float | None = None
    before: float | None = None
    part: float | None = None
    group: str = ""

    @property
    def change(self) -> float | None:
        """The share now without that of the reference."""
        return None if self.before is None else self.share - self.before


def lines(tallies: Mapping[str, Tally], reference: Reference | None = None) -> list[Line]:
    """A line for each key of the window or the reference, by what it adds to the distance.

    Args:
        tallies: by key.
        reference: what it is held against; without one the most frequent come first.
    """
    rows = sum(tally.rows for tally in tallies.values())
    known = () if reference is None else reference.keys[:-2]
    keys = list(dict.fromkeys([*tallies, *known]))
    counts = [tallies[key].rows if key in tallies else 0 for key in keys]
    low, high = wilson(counts, rows)
    parts = {} if reference is None or not rows else _parts(tallies, reference)
    place = {key: number for number, key in enumerate(known)}
    found = []
    for at, key in enumerate(keys):
        group, before = "", None
        if reference is not None:
            if key in place:
                before = reference.counts[place[key]] / reference.rows
            else:
                group = OTHER if key in reference.others else UNSEEN
                before = 0.0 if group == UNSEEN else None
        mean = tallies[key].mean() if key in tallies else None
        found.append(
            Line(
                key=key,
                rows=counts[at],
                share=counts[at] / rows if rows else 0.0,
                low=float(low[at]),
                high=float(high[at]),
                mean=mean[0] if mean else None,
                half=mean[1] if mean else None,
                before=before,
                part=parts.get(group or key),
                group=group,
            )
        )
    return sorted(found, key=lambda line: (-(line.part or 0.0), -line.rows, line.key))


def _parts(tallies: Mapping[str, Tally], reference: Reference) -> dict[str, float]:
    """What each key, or group, adds to the PSI."""
    now = reference.folded({key: tally.rows for key, tally in tallies.items()})
    # As in `verdict`: a key that neither has is none of the K.
    used = [
        place for place, pair in enumerate(zip(now, reference.counts, strict=True)) if any(pair)
    ]
    far = psi([now[place] for place in used], [reference.counts[place] for place in used])
    return {reference.keys[place]: part for place, part in zip(used, far.parts, strict=True)}


def spoken(found: Sequence[Line], most: int) -> list[str]:
    """The keys worth drawing over time: what changed most and has rows, then the most frequent."""
    seen = [line for line in found if line.rows]
    changed = [line.key for line in seen if line.part is not None]
    frequent = [line.key for line in sorted(seen, key=lambda line: (-line.rows, line.key))]
    return list(dict.fromkeys([*changed[:most], *frequent]))[:most]
