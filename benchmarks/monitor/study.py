"""Study: months through every rule, each month with a reference of its own day before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.monitor.rules import (
    WIDEST,
    Evidence,
    Psi,
    Rule,
    Screen,
    ThreeSigma,
    allowed_of,
    part_of,
)
from benchmarks.monitor.worlds import CHANGED, DAY, SHARES, World
from mqinfer.monitor.detector import Budget

if TYPE_CHECKING:
    from benchmarks.monitor.rules import Allowed

    Numbers = np.ndarray[Any, np.dtype[np.float64]]

TOGETHER = 250  # months that are worked through at once: what they hold fits the cache
Done = Callable[[float], None]  # told how many months' worth of steps was done


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


def stable(
    world: World, months: int, days: float, budget: Budget, seed: int, done: Done | None = None
) -> Outcome:
    """Months in which nothing changes; of whole hours."""
    outcome = Outcome()
    for first in range(0, months, TOGETHER):
        count = min(TOGETHER, months - first)
        outcome.add(_stable(world, count, max(1, round(days * 24)), budget, [seed, first], done))
    return outcome


def _stable(
    world: World, months: int, hours: int, budget: Budget, seed: list[int], done: Done | None
) -> Outcome:
    allowed, rules = _begun(world, rng := np.random.default_rng(seed), months)
    screen = Screen(allowed, budget)
    alarms = {name: np.zeros(months) for name in (Evidence.name, *(rule.name for rule in rules))}
    after_the_day = rng.bit_generator.state
    for hour in range(hours):
        counts = world.steps(rng, DAY + hour * WIDEST, WIDEST, months)
        screen.steps(counts)
        for rule in rules:
            alarms[rule.name] += rule.steps(counts).sum(axis=0)
        if done:
            done(months / hours)
    # Once more, step by step, the few months in which the monitor's own rule may have alarmed.
    may = np.flatnonzero(screen.may)
    rng.bit_generator.state = after_the_day
    own = Evidence(part_of(allowed, may), budget)
    for hour in range(hours if len(may) else 0):
        counts = world.steps(rng, DAY + hour * WIDEST, WIDEST, months)
        alarms[own.name][may] += own.steps(counts[..., may]).sum(axis=0)
    return Outcome(alarms=alarms)


def changed(
    world: World, share: float, months: int, most: int, budget: Budget, seed: int
) -> Outcome:
    """Months in which a share of 0.10 becomes another one, at a step of its own in each.

    Args:
        world: how rows come.
        share: what it becomes.
        months: how many.
        most: rows after which nobody waits any longer.
        budget: of false alarms.
        seed: of the random numbers.
    """
    rng = np.random.default_rng([seed, int(share * 1000)])
    allowed, others = _begun(world, rng, months)
    rules = [Evidence(allowed, budget), *others]
    begins = DAY + rng.integers(DAY // 4, DAY // 2, months)
    seen = np.zeros(months, np.int64)
    rows = {rule.name: np.full(months, np.inf) for rule in rules}
    number = DAY
    while (seen < most).any() and not all(np.isfinite(one).all() for one in rows.values()):
        before, after = (
            world.steps(rng, number, WIDEST, months, one) for one in (SHARES[CHANGED], share)
        )
        begun = np.arange(number, number + WIDEST)[:, None] >= begins
        counts = np.where(begun[:, None], after, before)
        since = seen + (counts.sum(axis=1, dtype=np.int64) * begun).cumsum(axis=0)
        for rule in [rule for rule in rules if np.isinf(rows[rule.name]).any()]:
            told = rule.steps(counts) & begun & (since <= most)
            first = told.any(axis=0) & np.isinf(rows[rule.name])
            rows[rule.name][first] = since[told.argmax(axis=0), np.arange(months)][first]
        seen = since[-1]
        number += WIDEST
    return Outcome(rows=rows)


def _begun(world: World, rng: np.random.Generator, months: int) -> tuple[Allowed, list[Rule]]:
    """What the day before allows, and the rules that others use."""
    reference = np.concatenate(
        [world.steps(rng, number, WIDEST, months) for number in range(0, DAY, WIDEST)]
    )
    rules: list[Rule] = [
        kind(reference, minutes) for kind in (Psi, ThreeSigma) for minutes in (10, 60)
    ]
    return allowed_of(reference), rules
