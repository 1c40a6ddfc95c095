"""How sure a number is: means and effects over positions, with their 95 % intervals. Pure.

The positions are the independent units of the study, not the leaves: leaves of one plant fall ill
together. So every number is a mean over positions of the position's own mean, and its 95 % interval
is Student's t over those means. The effect is a difference in differences: how much a position's
mean grade changed from the first day to the last, active minus control; its interval is Welch's t.
Below zero means that the medicine helps.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean grade of one disease in one area on one day; `margin` is half its 95 % interval."""

    disease: str
    area: str
    date: datetime.date
    positions: int
    leaves: int
    mean: float
    margin: float


@dataclass(frozen=True, slots=True)
class Effect:
    """What the medicine did to one disease, in grades, with its 95 % interval."""

    disease: str
    control: int
    active: int
    control_change: float
    active_change: float
    control_variance: float
    active_variance: float

    @property
    def effect(self) -> float:
        """The difference in differences; below zero the medicine helps."""
        return self.active_change - self.control_change

    @property
    def margin(self) -> float:
        """Half the interval: Welch's t, its degrees of freedom rounded down."""
        if min(self.control, self.active) < 2:
            return math.nan
        parts = (self.control_variance / self.control, self.active_variance / self.active)
        total = sum(parts)
        if not total:
            return 0.0
        of_parts = parts[0] ** 2 / (self.control - 1) + parts[1] ** 2 / (self.active - 1)
        return student_t(max(1, int(total**2 / of_parts))) * math.sqrt(total)

    @property
    def known_margin(self) -> float | None:
        """None where there are too few positions for one."""
        return None if math.isnan(self.margin) else self.margin

    @property
    def low(self) -> float:
        """Where the interval begins."""
        return self.effect - self.margin

    @property
    def high(self) -> float:
        """Where the interval ends."""
        return self.effect + self.margin

    @property
    def verdict(self) -> str:
        """In words: which side of zero the whole interval is on."""
        if self.high < 0:
            return "helps"
        return "harms" if self.low > 0 else "not shown"


def means(rows: Iterable[dict[str, Any]]) -> list[Mean]:
    """The answers to `queries.means_of`."""
    found = []
    for row in rows:
        error = row.pop("standard_error")
        margin = math.nan if error is None else student_t(row["positions"] - 1) * error
        found.append(Mean(**row, margin=margin))
    return found


def effects(rows: Iterable[dict[str, Any]]) -> list[Effect]:
    """The answers to `queries.effects_of`."""
    return [Effect(**row) for row in rows]


def student_t(freedom: int, level: float = 0.95) -> float:
    """How many standard errors wide half a two-sided interval is.

    Exact for whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4), by bisection.
    ClickHouse has it built in from 25.10 on, as studentTTestOneSample.
    """

    def inside(t: float) -> float:
        angle = math.atan(t / math.sqrt(freedom))
        cos2, term, total = math.cos(angle) ** 2, 1.0, 0.0
        odd = freedom % 2
        for k in range((freedom - odd) // 2):
            total += term
            term *= cos2 * (2 * k + 1 + odd) / (2 * k + 2 + odd)
        if odd:
            return (angle + math.sin(angle) * math.cos(angle) * total) * 2 / math.pi
        return math.sin(angle) * total

    low, high = 0.0, 1e4
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < level else (low, middle)
    return high
