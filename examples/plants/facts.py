"""What the pipeline says beside its grades, each held against what the grades themselves say.

Reports, alarms, reminders and the analyses of the mornings are made by stages that wait, remember
or are woken. Their truth needs none of that: it is counted here, from all grades at once.
"""

from __future__ import annotations

import datetime
import itertools
import math
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from clickhouse_connect.driver.client import Client

from examples.plants.drones import Where
from stages.plants import cache
from stages.plants.effects import Effect, effects
from stages.plants.health import DAY, WORSE_DAYS
from stages.plants.queries import COUNTS, INSPECTED, LEAVES, LIVE, effects_of, means_of

# A position, the first and the third day.
Worsening = tuple[str, datetime.date, datetime.date]
CLOSE = 1e-9  # grades are summed in another order


@dataclass
class Facts:
    """Lines to read, figures to keep, and the promises that do not hold."""

    lines: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def promise(self, kept: bool, otherwise: str) -> None:
        """Note a promise that is not kept."""
        if not kept:
            self.broken.append(otherwise)


def tell_reports(client: Client, photographs: Collection[Where], facts: Facts) -> None:
    """A report for each photograph, which says what its grades say.

    Args:
        client: of the database.
        photographs: that were taken.
        facts: gets what is found.
    """
    truth = _graded(client)
    nothing = (0, [0, 0, 0, 0])
    wrong, leaves, grades, died, ungraded = [], 0, 0, 0, 0
    reports = client.query(
        "SELECT position_id, date, leaves, by_grade, grade, worst_grade, died, length(ungraded), "
        "incomplete FROM photo_report"
    ).result_rows
    for position, date, *says, gone, missing, incomplete in reports:
        if says != _report(*truth.get((position, date), nothing)) or incomplete:
            wrong.append(f"{position} {date}")
        leaves, grades = leaves + says[0], grades + sum(says[1])
        died, ungraded = died + gone, ungraded + missing
    told = [(position, date) for position, date, *_ in reports]
    facts.promise(
        sorted(told) == sorted(photographs),
        f"{len(told)} reports, of {len(set(told))} photographs, not of {len(photographs)}",
    )
    facts.promise(not wrong, f"{len(wrong)} reports are not what the grades say: {wrong[:5]}")
    facts.promise(not died + ungraded, f"reports tell of {died} deaths, {ungraded} without a grade")
    facts.figures["reports"] = len(told)
    facts.lines.append(
        f"reports: {len(told)} of {len(photographs)} photographs, each as its grades say: "
        f"{leaves:,} leaves, {grades:,} grades, {ungraded} missing, {died} dead"
    )


def _graded(client: Client) -> dict[Where, tuple[int, list[int]]]:
    """Of each photograph with leaves: how many, and how many grades of 0, 1, 2 and 3."""
    counts = {(where, day): list(some) for where, day, some in client.query(COUNTS).result_rows}
    return {
        (where, day): (leaves, counts.get((where, day), [0, 0, 0, 0]))
        for where, day, leaves in client.query(LEAVES).result_rows
    }


def _report(leaves: int, by_grade: list[int]) -> list[Any]:
    """What a report must say: leaves, grades by grade, their mean, the worst."""
    mean = mean_of(by_grade)
    worst = max((grade for grade, count in enumerate(by_grade) if count), default=None)
    return [leaves, by_grade, mean, worst]


def mean_of(by_grade: list[int]) -> float | None:
    """The mean grade; None where there are none."""
    count = sum(by_grade)
    return sum(grade * n for grade, n in enumerate(by_grade)) / count if count else None


def tell_alarms(client: Client, facts: Facts) -> None:
    """One alarm for each time that a position got worse on three days in a row or more."""
    counts = _graded(client)
    truth = _worsened({where: mean_of(some) for where, (_, some) in counts.items()})
    rows = client.query(INSPECTED).result_rows
    seen = _worsened({(position, date): grade for position, date, grade in rows})
    rows = client.query(
        "SELECT position_id, since, date, before, grade FROM alarm ORDER BY date, position_id"
    ).result_rows
    alarms = [(position, since, date) for position, since, date, *_ in rows]
    facts.promise(
        sorted(alarms) == sorted(truth),
        f"alarms are {sorted(map(str, alarms))}, and by the grades {sorted(map(str, truth))}",
    )
    facts.figures["alarms"] = [f"{position} {since}" for position, since, _ in alarms]
    facts.lines.append(
        f"alarms: {len(alarms)}, as the grades say; {len(seen & set(alarms))} of the {len(seen)} "
        "of which the inspections tell"
    )
    facts.lines += [
        f"  {position} got worse on each day from {since} to {date}: {before:.2f} to {grade:.2f}"
        for position, since, date, before, grade in rows
    ]


def _worsened(means: Mapping[Where, float | None]) -> set[Worsening]:
    """Where and when it got worse, of the mean grades of all photographs."""
    found: dict[str, dict[datetime.date, float]] = {}
    for (position, date), mean in means.items():
        if mean is not None:
            found.setdefault(position, {})[date] = mean
    return {(position, *days) for position, grades in found.items() for days in worsenings(grades)}


def worsenings(
    grades: Mapping[datetime.date, float],
) -> Iterable[tuple[datetime.date, datetime.date]]:
    """The first and the third day of each worsening over three days or more."""
    days = sorted(grades)
    worse = [b for a, b in itertools.pairwise(days) if b - a == DAY and grades[b] > grades[a]]
    since, count = None, 0
    for day in worse:
        since, count = (since, count + 1) if since and day - since == count * DAY else (day, 1)
        if count == WORSE_DAYS:
            yield since, day


def tell_mornings(client: Client, days: Collection[datetime.date], facts: Facts) -> None:
    """What was said every morning is what the tables say now of the days until then."""
    rows = client.query(
        "SELECT date, disease, positions, effect, margin FROM daily_effect WHERE date IN {days:"
        "Array(Date)}",
        parameters={"days": list(days)},
    ).result_rows
    said = {(date, disease): (n, effect, margin) for date, disease, n, effect, margin in rows}
    truth = {
        (day, one.disease): (one.control + one.active, one.effect, one.known_margin)
        for day in days
        for one in _effects_until(client, day)
    }
    same = len(rows) == len(truth) and all(
        key in said and _close(said[key], answer) for key, answer in truth.items()
    )
    facts.promise(same, f"{len(rows)} answers of mornings are not the {len(truth)} of the tables")
    last = truth.get((max(days), "all"))
    effect, margin = (math.nan, None) if last is None else last[1:]
    facts.figures["mornings"] = len({date for date, _ in said})
    facts.figures["last_morning"] = effect
    sure = "" if margin is None else f" ± {margin:.2f}"
    facts.lines.append(
        f"daily analysis: {len({date for date, _ in said})} mornings, {len(rows)} answers, "
        f"{'each as' if same else 'NOT'} the tables say; the last: {effect:+.2f}{sure} grades"
    )


def _effects_until(client: Client, day: datetime.date) -> list[Effect]:
    until = f"(SELECT * FROM {LIVE} WHERE date <= {{day:Date}})"
    found = client.query(effects_of(until), parameters={"day": day})
    return effects(dict(row) for row in found.named_results())


def tell_cache(client: Client, facts: Facts) -> None:
    """The same question to all grades, and to the view that keeps the positions' means."""
    cache.refresh(client)
    took, answers = {}, {}
    for name, grades in (("live", LIVE), ("cached", cache.VIEW)):
        began = time.perf_counter()
        answers[name] = client.query(means_of(grades)).result_rows
        took[name] = round(1000 * (time.perf_counter() - began), 1)
    live, cached = answers["live"], answers["cached"]
    same = len(live) == len(cached) and all(map(_close, live, cached))
    facts.promise(same, f"{cache.VIEW} does not say what the grades say")
    facts.figures["query_milliseconds"] = took
    facts.lines.append(
        f"cache: the curves from {cache.VIEW} in {took['cached']} ms, from all grades in "
        f"{took['live']} ms, {'the same' if same else 'NOT the same'} answers"
    )


def _close(one: Collection[Any], other: Collection[Any]) -> bool:
    """Whether two answers are the same, but for the order of a sum."""

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, float) and isinstance(b, float):
            return math.isclose(a, b, rel_tol=CLOSE, abs_tol=CLOSE) or (a != a and b != b)
        return bool(a == b)

    return len(one) == len(other) and all(map(same, one, other))


def reminded(client: Client) -> list[Where]:
    """The reminders there are: which position, and the day of its last photograph."""
    rows = client.query("SELECT position_id, last_photo FROM reminder").result_rows
    return [(position, day) for position, day in rows]


def tell_reminders(
    client: Client, photographs: Collection[Where], quick: bool, facts: Facts
) -> None:
    """One reminder a position, about its last photograph: each took the place of the one before.

    Args:
        client: of the database.
        photographs: that were taken.
        quick: whether all of them came in less time than a reminder takes, so that none can be
            about an earlier photograph.
        facts: gets what is found.
    """
    found, last = reminded(client), sorted(dict(sorted(photographs)).items())
    about_last = sorted(one for one in found if one in last)
    earlier = len(found) - len(about_last)
    facts.promise(about_last == last, f"{len(about_last)} reminders of {len(last)} positions")
    facts.promise(not (quick and earlier), f"{earlier} reminders are about earlier photographs")
    facts.figures["reminders"] = {"last": len(about_last), "earlier": earlier}
    facts.lines.append(
        f"reminders: {len(about_last)} of {len(last)} positions, each about its last photograph, "
        f"and {earlier} of {len(photographs) - len(last)} photographs that were followed by another"
    )
