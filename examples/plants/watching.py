"""The part of the demo that looks after the field: mornings strike, and drones that stay away."""

from __future__ import annotations

import asyncio
import datetime
import zoneinfo
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress

from clickhouse_connect.driver.client import Client as ClickHouse

from examples.plants import facts, fleet
from examples.plants.app import app
from examples.plants.drones import Where
from examples.plants.facts import Facts
from examples.plants.local import Pipeline, all_done
from mqinfer.testing import Harness, until
from stages.plants.daily import AT, ZONE
from stages.plants.health import DAY

LATE_SECONDS = 60.0  # more than that after its time, a reminder is missing


def photographs(flights: Iterable[fleet.Flight]) -> list[Where]:
    """Which positions were photographed when."""
    return [(one.photo.position_id, one.photo.date) for one in flights]


async def mornings(
    running: Pipeline, database: ClickHouse, flown: Collection[Where], told: Facts
) -> None:
    """Hold reports and alarms against the grades; then each morning of the season in turn strikes.

    Args:
        running: has answered all photographs.
        database: with the tables.
        flown: the photographs.
        told: gets what is found.

    Raises:
        StackError: the pipeline does not go on.
    """
    days = sorted({day for _, day in flown})
    await strike(running, days)
    await asyncio.to_thread(_look, database, flown, days, told)


def _look(
    database: ClickHouse, flown: Collection[Where], days: Sequence[datetime.date], told: Facts
) -> None:
    facts.tell_reports(database, flown, told)
    facts.tell_alarms(database, told)
    facts.tell_mornings(database, days, told)
    facts.tell_cache(database, told)


async def strike(running: Pipeline, days: Iterable[datetime.date]) -> None:
    """Let the clock strike on the morning after each day, and wait until all is analysed.

    Raises:
        StackError: the pipeline does not go on.
    """
    time = datetime.time.fromisoformat(AT)
    async with Harness(app, running.settings) as clock:
        for day in days:
            morning = datetime.datetime.combine(day + DAY, time, zoneinfo.ZoneInfo(ZONE))
            await clock.tick("analyse", morning)
    await all_done(app, running.settings, lambda: None)


async def reminders(
    running: Pipeline,
    database: ClickHouse,
    flown: Collection[Where],
    *,
    after: float,
    quick: bool,
    told: Facts,
) -> None:
    """No drone flies any more: wait until that is told of every position.

    Args:
        running: has answered all photographs.
        database: with the tables.
        flown: the photographs.
        after: seconds after which a reminder is due.
        quick: see `facts.tell_reminders`.
        told: gets what is found.

    Raises:
        StackError: the pipeline does not go on.
    """
    last = set(dict(sorted(flown)).items())

    async def come() -> bool:
        return last <= set(await asyncio.to_thread(facts.reminded, database))

    with suppress(AssertionError):  # what is missing is told below
        await until(come, "the reminders", after + LATE_SECONDS)
    await all_done(app, running.settings, lambda: None)
    await asyncio.to_thread(facts.tell_reminders, database, flown, quick, told)
