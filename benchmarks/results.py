"""What a benchmark finds: rows to show and goals to judge; the same for all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from statistics import median

from msgspec import Struct, field


class Options(Struct, frozen=True):
    """How to measure.

    Attributes:
        folder: empty, for data; removed afterwards.
        scale: of the amount of work; 1 for figures to quote, 0.01 to see that it runs.
        repeat: repetitions of each row, in turns.
        say: tells the user what goes on, one line.
        only: rows to measure, by the beginnings of their names in small letters; all if empty.
    """

    folder: Path
    scale: float
    repeat: int
    say: Callable[[str], None]
    only: Collection[str] = ()

    def amount(self, full: int, least: int = 100) -> int:
        """How many of something to do, of `full` at scale 1."""
        return max(least, round(full * self.scale))

    def wants(self, row: str) -> bool:
        """Whether a row of this name is to be measured."""
        return not self.only or row.lower().startswith(tuple(self.only))


class Figure(Struct, frozen=True):
    """One measured quantity of one row: every repetition of it.

    Attributes:
        samples: in the order they were measured.
        unit: "messages/s", "ms", "MB", ...
    """

    samples: tuple[float, ...]
    unit: str

    @property
    def median(self) -> float:
        """The middle one."""
        return median(self.samples)

    @property
    def spread(self) -> tuple[float, float]:
        """The least and the most."""
        return min(self.samples), max(self.samples)

    def times(self, other: Figure) -> float:
        """How many times the other this is: the median over the repetitions.

        What slows the machine for a while slows both of a repetition, so this is steadier than
        the ratio of the medians.
        """
        return median(a / b for a, b in zip(self.samples, other.samples, strict=True))


class Row(Struct, frozen=True):
    """One contender, or one setting of it.

    Attributes:
        name: "mqinfer, uvloop".
        figures: by heading, in the order of the table's columns.
    """

    name: str
    figures: dict[str, Figure]


class Goal(Struct, frozen=True):
    """What was promised of a figure.

    Attributes:
        what: "of the hand-written best".
        found: the figure; NaN if it could not be measured.
        bound: it has to keep.
        at_most: whether the bound is the most instead of the least.
    """

    what: str
    found: float
    bound: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether it is kept; what could not be measured is not."""
        return self.found <= self.bound if self.at_most else self.found >= self.bound


class Result(Struct, frozen=True):
    """What one benchmark found.

    Attributes:
        name: as in `--only`.
        title: what was measured, with the amounts.
        rows: of the table.
        goals: that it can judge.
        notes: what a reader has to know: what was left out and why.
        chart: the heading whose medians are drawn, if any.
    """

    name: str
    title: str
    rows: list[Row]
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    chart: str | None = None
