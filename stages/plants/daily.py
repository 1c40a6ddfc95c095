"""What the study says every morning of all days until yesterday: a schedule."""

from __future__ import annotations

import asyncio
import datetime
import zoneinfo

from clickhouse_connect.driver.exceptions import OperationalError

from mqinfer import Row, Snooze, Tick
from stages.plants import cache
from stages.plants.basics import app

ZONE = "Europe/Berlin"  # where the field is
AT = "06:00"
AGAIN = 60.0  # seconds until ClickHouse is asked again that did not answer


class DailyEffect(Row, table="daily_effect", order_by=("date", "disease")):
    """What the medicine has done to a disease until a day, in grades.

    Attributes:
        date: the last day that was looked at.
        disease: or "all", the mean over the five.
        positions: that were compared, of both areas.
        effect: how much more the grades changed with the medicine; below zero, it helps.
        margin: half the 95 % interval; None where there are too few positions.
    """

    date: datetime.date
    disease: str
    positions: int
    effect: float
    margin: float | None


@app.every("1d", at=AT, zone=ZONE, catch_up="last", timeout="5m")
async def analyse(tick: Tick) -> list[DailyEffect]:
    """Bring the cache up to date, and ask it."""
    day = day_before(tick)
    try:
        effects = await asyncio.to_thread(cache.effects_until, day)
    except OperationalError as error:  # an outage spends no attempt
        raise Snooze(f"ClickHouse does not answer: {error}", after=AGAIN) from error
    return [
        DailyEffect(day, one.disease, one.control + one.active, one.effect, one.known_margin)
        for one in effects
    ]


def day_before(tick: Tick) -> datetime.date:
    """Yesterday, where the field is."""
    here = tick.at.astimezone(zoneinfo.ZoneInfo(ZONE))
    return here.date() - datetime.timedelta(days=1)
