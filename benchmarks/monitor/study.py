"""Study: months through every rule, each month with a reference of its own day before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.monitor.rules import Evidence, Psi, Rule, ThreeSigma
from benchmarks.monitor.worlds import CHANGED, DAY, SHARES, World
from mqinfer.monitor.detector import Budget

if TYPE_CHECKING:
    Numbers = np.ndarray[Any, np.dtype[np.float64]]

TOGETHER = 250  # months that are worked through at once: what they hold fits the cache


@dataclass
class Outcome:
    """What the rules said of some months.

    Attributes:
        alarms: by rule, how many in each month.
        rows: by rule, rows from the change to the first alarm after it; infinite without one.
    """

    alarms: dict[str, Numbers] = field(default_factory=dict)
    rows: dict[str, Numbers] = field(default_factory=dict)

    def add(self, other: Outcome) -> None:
        """More months."""
        for mine, more in ((self.alarms, other.alarms), (self.rows, other.rows)):
            for name, values in more.items():
                mine[name] = np.concatenate([mine.get(name, np.empty(0)), values])


def stable(world: World, months: int, days: float, budget: Budget, seed: int) -> Outcome:
    """Months in which nothing changes."""
    outcome = Outcome()
    for first in range(0, months, TOGETHER):
        rng = np.random.default_rng([seed, first])
        count = min(TOGETHER, months - first)
        rules = _rules(world, rng, count, budget)
        alarms = {rule.name: np.zeros(count) for rule in rules}
        for number in range(DAY, DAY + int(days * DAY)):
            counts = world.step(rng, number, count)
            for rule in rules:
                alarms[rule.name] += rule.step(counts)
        outcome.add(Outcome(alarms=alarms))
    return outcome


def changed(
    world: World, share: float, months: int, most: int, budget: Budget, seed: int
) -> Outcome:
    """Months in which a share of 0.10 becomes another one, at an hour of its own in each.

    Args:
        world: how rows come.
        share: what it becomes.
        months: how many.
        most: rows after which nobody waits any longer.
        budget: of false alarms.
        seed: of the random numbers.
    """
    rng = np.random.default_rng([seed, int(share * 1000)])
    rules = _rules(world, rng, months, budget)
    begins = DAY + rng.integers(DAY // 4, DAY // 2, months)
    seen = np.zeros(months)
    rows = {rule.name: np.full(months, np.inf) for rule in rules}
    number = DAY
    while (seen < most).any() and not all(np.isfinite(one).all() for one in rows.values()):
        before, after = (world.step(rng, number, months, one) for one in (SHARES[CHANGED], share))
        begun = number >= begins
        counts = np.where(begun[:, None], after, before)
        seen += counts.sum(axis=1) * begun
        for rule in rules:
            first = rule.step(counts) & begun & np.isinf(rows[rule.name]) & (seen <= most)
            rows[rule.name][first] = seen[first]
        number += 1
    return Outcome(rows=rows)


def _rules(world: World, rng: np.random.Generator, months: int, budget: Budget) -> list[Rule]:
    reference = np.stack([world.step(rng, number, months) for number in range(DAY)], axis=1)
    windows: list[Rule] = [
        kind(reference, minutes) for kind in (Psi, ThreeSigma) for minutes in (10, 60)
    ]
    return [Evidence(reference, budget), *windows]
