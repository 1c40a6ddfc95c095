"""Cron: the five fields of crontab(5): minute, hour, day of month, month, day of week. Pure.

A field is `*`, a number, a range `1-5` or a list of those, each with a step `/15`; months and days
have names of three letters, and Sunday is 0 or 7. Where neither of the two fields of days begins
with `*`, a day that is in one of them counts, as in crontab(5).
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from functools import cached_property

_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec"
_DAYS = "sun mon tue wed thu fri sat"
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS.split(), 1)}),
    ("day of week", 0, 7, {name: number for number, name in enumerate(_DAYS.split())}),
)
_PART = re.compile(r"(\*|(\w+)(?:-(\w+))?)(?:/(\d{1,4}))?", re.ASCII)
_NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


@dataclass(frozen=True)
class Cron:
    """Times of local clocks.

    Attributes:
        text: as it was written, with single spaces.
        minutes: of an hour.
        hours: of a day.
        days: of a month.
        months: of a year, from 1.
        weekdays: 0 is Sunday.
        either: whether a day counts that is in one of the two fields of days.
        every_hour: whether the field of hours begins with `*`, so that an hour which comes twice
            counts twice.
    """

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool
    every_hour: bool

    def on(self, day: datetime.date) -> bool:
        """Whether there are any on a day."""
        if day.month not in self.months:
            return False
        by_month, by_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return by_month or by_week if self.either else by_month and by_week

    @cached_property
    def times(self) -> tuple[datetime.time, ...]:
        """Of such a day, in order."""
        return tuple(datetime.time(hour, minute) for hour in self.hours for minute in self.minutes)


def parse_cron(text: str) -> Cron:
    """The times that five fields name.

    Raises:
        ValueError: which field is wrong, and what may stand there.
    """
    if not isinstance(text, str):
        raise ValueError(f"a cron schedule is text such as '0 6 * * *', not {text!r}")  # noqa: TRY004
    fields = _NAMED.get(text.strip().lower(), text).split()
    if len(fields) != len(_FIELDS):
        raise ValueError(
            f"{text!r} has {len(fields)} fields; a cron schedule has five: minute, hour, day of "
            "month, month, day of week, such as '0 6 * * mon-fri'"
        )
    values = [_values(*pair) for pair in zip(fields, _FIELDS, strict=True)]
    minutes, hours, days, months, weekdays = values
    _, hour, day, _, weekday = fields
    return Cron(
        text=" ".join(fields),
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days=frozenset(days),
        months=frozenset(months),
        weekdays=frozenset(number % 7 for number in weekdays),
        either=not (day.startswith("*") or weekday.startswith("*")),
        every_hour=hour.startswith("*"),
    )


def _values(field: str, known: tuple[str, int, int, dict[str, int]]) -> set[int]:
    what, least, most, names = known
    wrong = ValueError(
        f"{field!r} is no {what}: write *, numbers from {least} to {most}"
        f"{' or names such as ' + next(iter(names)) if names else ''}, ranges (1-5), lists (1,3) "
        "and steps (*/15)"
    )

    def number(text: str) -> int:
        if text.lower() in names:
            return names[text.lower()]
        if not (text.isascii() and text.isdecimal()) or not least <= int(text[:9]) <= most:
            raise wrong
        return int(text)

    found: set[int] = set()
    for part in field.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise wrong
        whole, first, last, step = match.groups()
        if whole == "*":
            low, high = least, most
        else:
            low = number(first)
            # "5/15" is from 5 to the end; a number alone is itself.
            high = number(last) if last else most if step else low
        if low > high or step == "0" * len(step or "1"):
            raise wrong
        found.update(range(low, high + 1, int(step or 1)))
    return found
