"""Two versions of a grader beside the truth, on the same leaves; and a report before and after."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clickhouse_connect.driver.client import Client
from rich.table import Table

from examples.plants.analysis import Study
from stages.plants.queries import ANSWERED, VERSIONS

SURE = 3.0  # standard errors; by chance less than 1.4 times in 1,000


@dataclass(frozen=True, slots=True)
class Versions:
    """How often which two grades were given to leaves of which true grade.

    Attributes:
        cells: leaves by (truth, grade of the old version, grade of the new one).
    """

    cells: dict[tuple[int, int, int], int]

    @property
    def leaves(self) -> int:
        """Found leaves that are there, with both answers."""
        return sum(self.cells.values())

    def matrix(self, one: int, other: int) -> list[list[int]]:
        """Leaves by two of truth (0), old (1) and new (2), as rows and columns."""
        counts = [[0] * 4 for _ in range(4)]
        for cell, leaves in self.cells.items():
            counts[cell[one]][cell[other]] += leaves
        return counts

    def within(self, side: int, distance: int) -> float:
        """The part of the leaves whose grade is at most so far from the truth.

        Args:
            side: 1 is the old version, 2 the new one.
            distance: 0 asks for exact grades.
        """
        near = sum(n for cell, n in self.cells.items() if abs(cell[side] - cell[0]) <= distance)
        return near / self.leaves if self.leaves else math.nan

    @property
    def mended(self) -> int:
        """Leaves that only the new version grades right."""
        return sum(n for (truth, old, new), n in self.cells.items() if old != truth == new)

    @property
    def spoilt(self) -> int:
        """Leaves that only the old version graded right."""
        return sum(n for (truth, old, new), n in self.cells.items() if old == truth != new)

    @property
    def sureness(self) -> float:
        """By how many standard errors more leaves are mended than spoilt (McNemar's test)."""
        changed = self.mended + self.spoilt
        return (self.mended - self.spoilt) / math.sqrt(changed) if changed else 0.0

    @property
    def changed(self) -> int:
        """Leaves to which the two give different grades."""
        return sum(n for (_, old, new), n in self.cells.items() if old != new)

    def figures(self) -> dict[str, Any]:
        """What a report keeps."""
        sides = {"version_1": 1, "version_2": 2}
        return {
            "leaves": self.leaves,
            **{
                name: {"exact": self.within(side, 0), "within_one": self.within(side, 1)}
                for name, side in sides.items()
            },
            "mended": self.mended,
            "spoilt": self.spoilt,
            "standard_errors": self.sureness,
            "truth_by_version_1": self.matrix(0, 1),
            "truth_by_version_2": self.matrix(0, 2),
            "version_1_by_version_2": self.matrix(1, 2),
        }


def versions(client: Client, run: str, disease: str) -> Versions:
    """Ask ClickHouse for the live answers and those of a run beside the truth."""
    found = client.query(VERSIONS, parameters={"run": run, "disease": disease})
    return Versions({(truth, old, new): n for truth, old, new, n in found.result_rows})


def answered(client: Client, disease: str) -> dict[tuple[str, str], tuple[int, int]]:
    """Rows, and different leaves among them, by run ("" is live) and version."""
    found = client.query(ANSWERED, parameters={"disease": disease})
    return {(run, version): (rows, leaves) for run, version, rows, leaves in found.result_rows}


def shown(
    client: Client, disease: str, of: tuple[str, datetime.date] | None = None
) -> dict[str, int]:
    """Rows that the table shows, by the version that answered.

    Args:
        client: of the database.
        disease: whose grades.
        of: position and day of one photograph; None is all.
    """
    parameters: dict[str, Any] = {"disease": disease}
    chosen = ""
    if of is not None:
        chosen = "AND position_id = {position:String} AND date = {date:Date}"
        parameters |= {"position": of[0], "date": of[1]}
    sql = f"""SELECT disease_model_version, count() FROM disease_grade
        WHERE disease_type = {{disease:String}} {chosen} GROUP BY 1 ORDER BY 1"""
    rows = client.query(sql, parameters=parameters).result_rows
    return {str(version): int(count) for version, count in rows}


def truth_table(found: Versions) -> Table:
    """Both versions against the truth, for a terminal."""
    table = Table(title=f"Rust against the truth, on the same {found.leaves:,} leaves")
    for name in ("model", "exact", "within one", "right where the other is wrong"):
        table.add_column(name, justify="left" if name == "model" else "right")
    for side, alone in ((1, found.spoilt), (2, found.mended)):
        parts = (f"{found.within(side, 0):.4f}", f"{found.within(side, 1):.4f}", f"{alone:,}")
        table.add_row(f"grade_rust {side}", *parts)
    return table


def report(found: Study, disease: str, days: Sequence[datetime.date]) -> dict[str, Any]:
    """What the study says of one disease.

    Args:
        found: all of the study.
        disease: which.
        days: whose mean grades are told.
    """
    (graded,) = (one for one in found.agreements if one.disease == disease)
    means = [
        (mean.area, mean.date, mean.mean)
        for mean in found.means
        if mean.disease == disease and mean.date in days
    ]
    return {
        "models": ", ".join(graded.models),
        "grades": graded.graded,
        "exact": graded.exact,
        "within one": graded.within_one,
        **{f"mean grade, {area}, {date}": mean for area, date, mean in means},
    }


def change_table(before: dict[str, Any], after: dict[str, Any], disease: str) -> Table:
    """A report before and after, for a terminal."""
    table = Table(title=f"The report's {disease}, before and after the promotion")
    table.add_column("")
    for name in ("before", "after"):
        table.add_column(name, justify="right")
    for name, value in before.items():
        table.add_row(name, _text(value), _text(after[name]))
    return table


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
