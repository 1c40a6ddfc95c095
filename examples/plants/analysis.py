"""Did the medicine work? Questions to ClickHouse, and the answers as tables and a chart.

    python -m examples.plants.analysis --chart healing.png

What the numbers mean and how sure they are: `stages.plants.effects`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error
from rich.console import Console
from rich.table import Table

from mqinfer import Settings
from stages.plants.effects import Effect, Mean
from stages.plants.effects import effects as effects_from
from stages.plants.effects import means as means_from
from stages.plants.queries import DETECTION, GRADING, LIVE, effects_of, means_of


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well one disease is graded on the leaves that were found."""

    disease: str
    graded: int
    models: Sequence[str]
    exact: float
    within_one: float


@dataclass(frozen=True, slots=True)
class Study:
    """All answers.

    Attributes:
        means: by disease, area and date.
        effects: by disease; the last is over all of them.
        agreements: by disease.
        found: leaves that the detector found.
        leaves: leaves that are there.
        pairs: of a found leaf and one that is there.
    """

    means: list[Mean]
    effects: list[Effect]
    agreements: list[Agreement]
    found: int
    leaves: int
    pairs: int

    @property
    def precision(self) -> float:
        """The part of the found leaves that are there."""
        return self.pairs / self.found if self.found else math.nan

    @property
    def recall(self) -> float:
        """The part of the leaves that were found."""
        return self.pairs / self.leaves if self.leaves else math.nan

    @property
    def exact(self) -> float:
        """The part of all grades that are right."""
        return self._over_all("exact")

    @property
    def within_one(self) -> float:
        """The part of all grades that are right or next to it."""
        return self._over_all("within_one")

    def _over_all(self, name: str) -> float:
        graded = sum(one.graded for one in self.agreements)
        right: float = sum(getattr(one, name) * one.graded for one in self.agreements)
        return right / graded if graded else math.nan

    def figures(self) -> dict[str, Any]:
        """What a report keeps."""
        return {
            "precision": self.precision,
            "recall": self.recall,
            "exact": self.exact,
            "within_one": self.within_one,
            "effects": [
                {
                    "disease": one.disease,
                    "effect": one.effect,
                    "low": one.low,
                    "high": one.high,
                    "verdict": one.verdict,
                }
                for one in self.effects
            ],
            "agreements": [asdict(one) for one in self.agreements],
        }


def study(client: Client, grades: str = LIVE) -> Study:
    """Ask ClickHouse everything.

    Args:
        client: of the database with the tables of `stages.plants`.
        grades: where the grades of the positions are: see `queries`.
    """
    means = means_from(_rows(client, means_of(grades)))
    effects = effects_from(_rows(client, effects_of(grades)))
    agreements = [Agreement(**row) for row in _rows(client, GRADING)]
    (detection,) = _rows(client, DETECTION)
    return Study(means, effects, agreements, **detection)


def _rows(client: Client, sql: str) -> list[dict[str, Any]]:
    return [dict(row) for row in client.query(sql).named_results()]


def tables(found: Study) -> list[Table]:
    """The answers, for a terminal."""
    days = sorted({mean.date for mean in found.means})
    shown = dict.fromkeys([days[0], days[len(days) // 2], days[-1]]) if days else {}
    grades = Table(title="Mean grade (0 healthy to 3), ± half the 95 % interval over positions")
    for name in ("disease", "area"):
        grades.add_column(name)
    for day in shown:
        grades.add_column(str(day), justify="right")
    cells = {(mean.disease, mean.area, mean.date): mean for mean in found.means}
    for disease, area in dict.fromkeys((mean.disease, mean.area) for mean in found.means):
        some = [cells.get((disease, area, day)) for day in shown]
        texts = [f"{one.mean:.2f} ± {one.margin:.2f}" if one else "" for one in some]
        grades.add_row(disease, area, *texts, end_section=area == "active")

    effects = Table(title="Effect of the medicine, in grades (difference in differences)")
    for name in ("disease", "control", "active", "effect", "95 % interval", "the medicine"):
        effects.add_column(name, justify="left" if name == "disease" else "right")
    for one in found.effects:
        interval = f"{one.low:+.2f} to {one.high:+.2f}"
        changes = (one.control_change, one.active_change, one.effect)
        effects.add_row(one.disease, *(f"{c:+.2f}" for c in changes), interval, one.verdict)

    truth = Table(
        title=f"Against the truth: {found.leaves} leaves, {found.found} found, "
        f"precision {found.precision:.3f}, recall {found.recall:.3f}"
    )
    for name in ("disease", "models", "grades", "exact", "within one"):
        truth.add_column(name, justify="left" if name in ("disease", "models") else "right")
    for each in found.agreements:
        parts = (f"{each.exact:.3f}", f"{each.within_one:.3f}")
        truth.add_row(each.disease, ", ".join(each.models), f"{each.graded:,}", *parts)
    total = f"{sum(each.graded for each in found.agreements):,}"
    truth.add_section()
    truth.add_row("all", "", total, f"{found.exact:.3f}", f"{found.within_one:.3f}")
    return [grades, effects, truth]


def main() -> int:
    """Print the report and draw the chart, with the settings of the environment."""
    parser = argparse.ArgumentParser(prog="python -m examples.plants.analysis")
    parser.add_argument("--chart", type=Path, default=Path("healing.png"))
    options = parser.parse_args()
    try:
        client = clickhouse_connect.get_client(dsn=Settings.load().clickhouse_url)
        found = study(client)
    except Error as error:
        print(f"error: ClickHouse: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    Console().print(*tables(found))
    from examples.plants.chart import draw

    print(f"chart: {draw(found, options.chart)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
