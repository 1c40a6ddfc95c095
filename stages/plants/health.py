"""How each position is from day to day, and an alarm when it gets worse and worse: a state."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from msgspec import field

from mqinfer import Row, State
from stages.plants.basics import PositionId, app
from stages.plants.report import PhotoReport

WORSE_DAYS = 3  # in a row, each worse than the day before
KEPT_DAYS = 30
DAY = datetime.timedelta(days=1)


class Health(State, ttl="90d"):
    """What is remembered of a position.

    Attributes:
        grades: the mean grade of its newest days.
        alarms: the days that an alarm was about, of those.
    """

    grades: dict[datetime.date, float] = field(default_factory=dict)
    alarms: list[datetime.date] = field(default_factory=list)


class Alarm(Row, table="alarm", order_by=("position_id",)):
    """A position that got worse on three days in a row; one alarm, however long it goes on.

    Attributes:
        position_id: which.
        since: the first day that was worse than the day before.
        date: the third.
        before: the mean grade on the day before the first.
        grade: on the third.
    """

    position_id: PositionId
    since: datetime.date
    date: datetime.date
    before: float
    grade: float


@app.stage
async def watch(report: PhotoReport, health: Health) -> Alarm | None:
    """Remember the day, whichever it is (a report may be late), and look at those around it."""
    if report.grade is None:
        return None
    grades = health.grades = newest({**health.grades, report.date: report.grade})
    worse = worsening(grades, report.date)
    told = [day for day in health.alarms if day in grades]
    if len(worse) < WORSE_DAYS or any(day in told for day in worse):
        return None
    first, last = worse[0], worse[WORSE_DAYS - 1]
    health.alarms = [*told, last]
    return Alarm(report.position_id, first, last, grades[first - DAY], grades[last])


def newest(grades: Mapping[datetime.date, float]) -> dict[datetime.date, float]:
    """Those of the last days, in their order."""
    return dict(sorted(grades.items())[-KEPT_DAYS:])


def worsening(grades: Mapping[datetime.date, float], day: datetime.date) -> list[datetime.date]:
    """The days in a row, before and after a day, that were each worse than the day before."""

    def worse(one: datetime.date) -> bool:
        return one in grades and one - DAY in grades and grades[one] > grades[one - DAY]

    first = day if worse(day) else day + DAY
    while worse(first - DAY):
        first -= DAY
    end = day + DAY
    while worse(end):
        end += DAY
    return [first + number * DAY for number in range((end - first).days)]
