"""Which times a schedule names: fields, zones, changes of clocks, and what counts when late."""

from __future__ import annotations

import datetime
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.cron import parse_cron
from mqinfer.errors import WiringError
from mqinfer.schedule import Schedule, cron, every
from mqinfer.tick import tick_id

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]
MINUTE = datetime.timedelta(minutes=1)
UTC = datetime.UTC


def utc(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=UTC)


def by(fields: str, zone: str = "UTC", **rest: Any) -> Schedule:
    return cron(fields, zone=zone, **{"catch_up": "all", "tolerance": 60, **rest})


def each(period: Any, **rest: Any) -> Schedule:
    return every(period, **{"at": None, "zone": None, "catch_up": "all", "tolerance": 60, **rest})


def first(schedule: Schedule, after: str, count: int) -> list[str]:
    ticks = islice(schedule.between(utc(after), utc("2100-01-01")), count)
    return [f"{tick:%Y-%m-%d %H:%M}" for tick in ticks]


moments = st.datetimes(
    datetime.datetime(2020, 1, 1), datetime.datetime(2035, 1, 1), timezones=st.just(UTC)
)
fields = st.tuples(
    st.sampled_from(["0", "*/15", "30", "*", "5,50", "10-40/10"]),
    st.sampled_from(["*", "2", "1-3", "*/6", "0", "23"]),
    st.sampled_from(["*", "*", "1", "10-20", "31"]),
    st.sampled_from(["*", "*", "mar", "10,11", "2-4"]),
    st.sampled_from(["*", "*", "sun", "mon-fri", "7"]),
).map(" ".join)


@given(fields, st.sampled_from(ZONES), moments)
def test_a_cron_schedule_is_what_a_clock_that_is_read_every_minute_shows(
    text: str, zone: str, moment: datetime.datetime
) -> None:
    """Every local minute of three days, read from a clock; what it skips is added by the rule."""
    schedule, parsed, place = by(text, zone), parse_cron(text), ZoneInfo(zone)
    start = moment.replace(second=0, microsecond=0)
    end = start + datetime.timedelta(days=3)

    def wanted(local: datetime.datetime) -> bool:
        day, time = local.date(), (local.hour, local.minute)
        return parsed.on(day) and time[0] in parsed.hours and time[1] in parsed.minutes

    shown: set[datetime.datetime] = set()
    tick = start + MINUTE
    while tick <= end:
        local = tick.astimezone(place)
        if wanted(local) and (local.fold == 0 or parsed.every_hour):
            shown.add(tick)
        # What a clock that was not put forward would show.
        before = (tick - datetime.timedelta(hours=3)).astimezone(place)
        if before.utcoffset() != local.utcoffset():
            old = tick.astimezone(datetime.timezone(before.utcoffset() or datetime.timedelta()))
            naive = old.replace(tzinfo=place, fold=0)
            skipped = naive.astimezone(UTC).astimezone(place).replace(tzinfo=None)
            if skipped != naive.replace(tzinfo=None) and wanted(naive):
                shown.add(naive.astimezone(UTC))
        tick += MINUTE
    assert list(schedule.between(start, end)) == sorted(shown)


periods = st.sampled_from([1, 7, 60, 900, 3600, 5400, "1d", "2d", "7d"])


@given(periods, st.sampled_from(ZONES), moments, st.integers(0, 86_400 * 9))
def test_ticks_are_in_order_and_none_is_left_out(
    period: Any, zone: str, moment: datetime.datetime, seconds: int
) -> None:
    days = isinstance(period, str)
    schedule = each(period, at="02:30" if days else None, zone=zone if days else None)
    one = schedule.after(moment)
    assert one > moment
    assert schedule.after(one - datetime.timedelta(microseconds=1)) == one
    until = moment + datetime.timedelta(seconds=seconds % (9 * 86_400 if days else 3600))
    found = list(schedule.between(moment, until))
    assert found == sorted(set(found))
    assert schedule.last(moment, until) == (found[-1] if found else None)
    if not days:
        assert all(tick.timestamp() % period == 0 for tick in found)


@given(fields, moments)
def test_what_counts_late(text: str, moment: datetime.datetime) -> None:
    now = moment + datetime.timedelta(hours=30)
    every_one, last = by(text), by(text, catch_up="last")
    none = by(text, catch_up="none", tolerance="1h")
    ticks = list(every_one.between(moment, now))
    assert all(every_one.counts(tick, now) for tick in ticks)
    assert [t for t in ticks if last.counts(t, now)] == ticks[-1:]
    on_time = [t for t in ticks if none.counts(t, now)]
    assert on_time == [t for t in ticks if now - t <= datetime.timedelta(hours=1)]


def test_clocks_are_put_forward_and_back() -> None:
    """Berlin: 2026-03-29 02:00 becomes 03:00, 2026-10-25 03:00 becomes 02:00."""
    daily = each("1d", at="02:30", zone="Europe/Berlin")
    assert first(daily, "2026-03-27 12:00", 3) == [
        "2026-03-28 01:30",
        "2026-03-29 01:30",  # 03:30 there
        "2026-03-30 00:30",
    ]
    assert first(daily, "2026-10-24 12:00", 2) == ["2026-10-25 00:30", "2026-10-26 01:30"]
    hourly = by("30 * * * *", "Europe/Berlin")
    assert first(hourly, "2026-03-29 00:00", 3) == [
        "2026-03-29 00:30",
        "2026-03-29 01:30",
        "2026-03-29 02:30",
    ]
    assert first(hourly, "2026-10-25 00:00", 3) == [
        "2026-10-25 00:30",
        "2026-10-25 01:30",
        "2026-10-25 02:30",
    ]
    assert first(by("30 2 * * *", "Europe/Berlin"), "2026-10-25 00:00", 2) == [
        "2026-10-25 00:30",
        "2026-10-26 01:30",
    ]
    # A day that was left out (Samoa, 2011-12-30): its ticks are those of the next.
    assert first(each("1d", at="12:00", zone="Pacific/Apia"), "2011-12-28 23:00", 3) == [
        "2011-12-29 22:00",
        "2011-12-30 22:00",
        "2011-12-31 22:00",
    ]


def test_days_of_month_and_week_as_in_crontab() -> None:
    assert first(by("0 0 13 * fri"), "2026-02-01", 4) == [
        "2026-02-06 00:00",
        "2026-02-13 00:00",
        "2026-02-20 00:00",
        "2026-02-27 00:00",
    ]
    assert first(by("0 0 */2 * mon"), "2026-02-01", 2) == ["2026-02-09 00:00", "2026-02-23 00:00"]
    assert first(by("0 12 29 2 *"), "2026-01-01", 2) == ["2028-02-29 12:00", "2032-02-29 12:00"]
    assert first(by("@daily"), "2026-01-01", 1) == ["2026-01-02 00:00"]
    assert first(each("2w"), "2026-01-01", 1) == first(each("14d", zone="UTC"), "2026-01-01", 1)


@pytest.mark.parametrize(
    "wrong",
    [
        *("* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *"),
        *("* * * * 8", "5-1 * * * *", "*/0 * * * *", "a * * * *", "1,,2 * * * *", "", "@often"),
        *("0 0 30 2 *", "٣ * * * *", "1-2-3 * * * *"),
    ],
)
def test_what_is_no_cron_schedule(wrong: str) -> None:
    with pytest.raises(WiringError):
        by(wrong)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"period": 0.5}, "whole seconds"),
        ({"period": "soon"}, "every"),
        ({"period": "1h", "at": "06:00"}, "whole days"),
        ({"period": "1h", "zone": "UTC"}, "whole days"),
        ({"period": "1d", "at": "6"}, "time of day"),
        ({"period": "1d", "at": 6}, "time of day"),
        ({"period": "1d", "zone": "Mars/Olympus"}, "tzdata"),
        ({"period": "1d", "zone": "../etc"}, "tzdata"),
        ({"period": "1d", "catch_up": "some"}, "catch_up"),
        ({"period": "1d", "tolerance": -1}, "tolerance"),
    ],
)
def test_what_is_no_schedule(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(WiringError, match=says):
        each(**wrong)


def test_a_tick_has_the_id_of_its_time() -> None:
    at = datetime.datetime(2026, 5, 27, 6, tzinfo=ZoneInfo("Europe/Berlin"))
    assert tick_id("nightly", at) == "nightly-20260527T040000Z@2026-05-27"
