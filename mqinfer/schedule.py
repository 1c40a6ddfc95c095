"""Schedule: the times at which a clock feeds a stage, and which of those that are late count. Pure.

Times are local ones of a zone, told in UTC. Where clocks are put forward, a time that they skip is
as much later as they were put forward (02:30 becomes 03:30), and two that fall together are one.
Where they are put back, a time that comes twice counts the first time; with `*` in the hours of a
cron schedule, both times. Intervals that are no whole days know no zone: they are multiples since
1970, in UTC.
"""

from __future__ import annotations

import datetime
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo

from mqinfer.cron import Cron, parse_cron
from mqinfer.errors import ConfigurationError, WiringError
from mqinfer.times import parse_duration

CatchUp = Literal["all", "last", "none"]

DAY = 86_400
# Days until a 29th of February that is looked for must have come: eight years, around 2100.
FAR = 8 * 366 + 1
# Days that are remembered: the ticks of one are asked for again and again, up to 1,440 of them.
KNOWN_DAYS = 16
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?", re.ASCII)
_ONE = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Schedule:
    """When ticks are.

    Attributes:
        text: what it is, for people and to tell it from another.
        zone: of local times.
        catch_up: which of the ticks count that are handled late: "all", the "last" of those that
            are due, or "none" that is later than `tolerance`.
        tolerance: seconds.
        seconds: between ticks; 0 where they are local times.
        days: every so many days, for local times.
        cron: days and times.
        times: of a day.
    """

    text: str
    zone: ZoneInfo
    catch_up: CatchUp = "all"
    tolerance: float = 60.0
    seconds: int = 0
    days: int = 1
    cron: Cron | None = None
    # Up to 1,440: to hash them at each look at a day would be most of the work.
    times: tuple[datetime.time, ...] = field(default=(), hash=False)

    @property
    def mark(self) -> str:
        """What tells it from another schedule; its first 8 bytes, BLAKE2b (RFC 7693)."""
        return blake2b(self.text.encode(), digest_size=8).hexdigest()

    def after(self, moment: datetime.datetime) -> datetime.datetime:
        """The first tick later than a time with a zone, in UTC."""
        moment = moment.astimezone(datetime.UTC)
        if self.seconds:
            step = datetime.timedelta(seconds=self.seconds)
            return _EPOCH + ((moment - _EPOCH) // step + 1) * step
        day = moment.astimezone(self.zone).date() - _ONE
        for _ in range(FAR):
            if _first(self, day, moment):
                # A skipped time of this day may be later than one of the next.
                return min(t for n in range(3) for t in _first(self, day + n * _ONE, moment))
            day += _ONE
        raise WiringError(f"there is no time that {self.text} names")

    def between(
        self, after: datetime.datetime, until: datetime.datetime
    ) -> Iterator[datetime.datetime]:
        """The ticks later than `after`, up to `until`."""
        tick = self.after(after)
        while tick <= until:
            yield tick
            tick = self.after(tick)

    def last(self, after: datetime.datetime, until: datetime.datetime) -> datetime.datetime | None:
        """The newest tick later than `after`, up to `until`."""
        # Back from the end in growing steps: there may be millions since `after`.
        reach = datetime.timedelta(seconds=max(self.seconds, 3600))
        while True:
            start = max(after, until - reach)
            found = None
            for found in self.between(start, until):  # noqa: B007
                pass
            if found is not None or start == after:
                return found
            reach *= 8

    def counts(self, tick: datetime.datetime, now: datetime.datetime) -> bool:
        """Whether a tick that is handled now is one that counts, by `catch_up`."""
        if self.catch_up == "last":
            return self.after(tick) > now
        if self.catch_up == "none":
            return (now - tick).total_seconds() <= self.tolerance
        return True


def _first(
    schedule: Schedule, day: datetime.date, moment: datetime.datetime
) -> Sequence[datetime.datetime]:
    """The first tick of a local day that is later than a moment; or none."""
    ticks = _on(schedule, day)
    place = bisect_right(ticks, moment)
    return ticks[place : place + 1]


@lru_cache(maxsize=KNOWN_DAYS)
def _on(schedule: Schedule, day: datetime.date) -> Sequence[datetime.datetime]:
    """The ticks of a local day, in order."""
    if schedule.cron is not None:
        if not schedule.cron.on(day):
            return []
    elif day.toordinal() % schedule.days:
        return []
    ticks = []
    for time in schedule.times:
        local = datetime.datetime.combine(day, time, tzinfo=schedule.zone)
        ticks.append(local.astimezone(datetime.UTC))
        if schedule.cron is not None and schedule.cron.every_hour:
            again = local.replace(fold=1).astimezone(datetime.UTC)
            # In a gap the second reading is the earlier one, and no time of its own.
            if again > ticks[-1]:
                ticks.append(again)
    return sorted(ticks)


def every(
    period: float | str,
    *,
    at: str | None,
    zone: str | None,
    catch_up: CatchUp,
    tolerance: float | str,
) -> Schedule:
    """Ticks at equal distances, or at a time of every day, or of every so many days.

    Raises:
        WiringError: what cannot be a schedule, and why.
    """
    seconds = _duration("every", period)
    if seconds < 1 or seconds != int(seconds):
        raise WiringError(f"every {period!r}: whole seconds, at least 1")
    rest = _late(catch_up, tolerance)
    days, odd = divmod(int(seconds), DAY)
    if odd:
        if at is not None or zone is not None:
            raise WiringError(f"every {period!r}: at= and zone= are for whole days, such as '1d'")
        return Schedule(f"every {int(seconds)} s", ZoneInfo("UTC"), seconds=int(seconds), **rest)
    match = _CLOCK.fullmatch(at or "00:00") if at is None or isinstance(at, str) else None
    if match is None:
        raise WiringError(f"at={at!r} must be a time of day such as '06:00'")
    hour, minute, second = (int(part or 0) for part in match.groups())
    time = datetime.time(hour, minute, second)
    place = _zone(zone)
    days_text = "every day" if days == 1 else f"every {days} days"
    text = f"{days_text} at {time.isoformat('auto')} {place.key}"
    return Schedule(text, place, days=days, times=(time,), **rest)


def cron(fields: str, *, zone: str | None, catch_up: CatchUp, tolerance: float | str) -> Schedule:
    """Ticks at the times of five fields; see `mqinfer.cron`.

    Raises:
        WiringError: what cannot be a schedule, and why.
    """
    try:
        parsed = parse_cron(fields)
    except ValueError as error:
        raise WiringError(f"cron: {error}") from None
    place = _zone(zone)
    made = Schedule(
        f"cron {parsed.text} {place.key}",
        place,
        cron=parsed,
        times=parsed.times,
        **_late(catch_up, tolerance),
    )
    made.after(_EPOCH)  # or there is none
    return made


def _late(catch_up: object, tolerance: float | str) -> dict[str, Any]:
    if catch_up not in get_args(CatchUp):
        raise WiringError(f"catch_up={catch_up!r} must be 'all', 'last' or 'none'")
    return {"catch_up": catch_up, "tolerance": _duration("tolerance", tolerance)}


def _duration(what: str, value: float | str) -> float:
    try:
        return parse_duration(value)
    except ConfigurationError as error:
        raise WiringError(f"{what}: {error}") from None


def _zone(name: str | None) -> ZoneInfo:
    try:
        return ZoneInfo(name or "UTC")
    except (KeyError, ValueError, OSError, TypeError):
        raise WiringError(
            f"zone={name!r} is no time zone that this system knows, such as 'Europe/Berlin' (on "
            "a system without zones: pip install tzdata)"
        ) from None
