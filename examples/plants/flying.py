"""A flight from the first photograph to the last row, and what the tables hold then."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clickhouse_connect.driver.client import Client as ClickHouse
from rich.console import Console

import mqinfer
from examples.plants import fleet
from examples.plants.app import app
from examples.plants.local import STALLED_SECONDS, Pipeline, all_done
from examples.plants.progress import Counts, Shown
from mqinfer import Client
from mqinfer.testing import until


@dataclass(frozen=True, slots=True)
class Run:
    """What one flight over the season did.

    Attributes:
        photographs: that were published.
        leaves: that the tables show then.
        grades: that they show.
        seconds: until all was answered.
        expected: seconds until each photograph had set the reminder of the next one.
    """

    photographs: int
    leaves: int
    grades: int
    seconds: float
    expected: float


async def fly_and_wait(
    console: Console,
    running: Pipeline,
    database: ClickHouse,
    flights: Iterable[fleet.Flight],
    *,
    total: int,
    what: str,
) -> Run:
    """Publish a season and wait until all of it is answered.

    Args:
        console: shows how far it is.
        running: where to.
        database: where the rows come.
        flights: the season; each is made in a thread when it is needed.
        total: how many there are.
        what: they are called.

    Raises:
        StackError: the pipeline does not go on.
    """
    began = time.monotonic()
    with Shown(console, what, total, lambda: counts(database)) as shown:
        async with mqinfer.connect(app, running.settings) as client:
            sent = await fleet.fly(client, flights, shown.sent)
            await until(lambda: _expected(client), "stage expect", STALLED_SECONDS)
            expected = time.monotonic() - began
        await all_done(app, running.settings, shown.look)
        seconds = time.monotonic() - began
    stored = counts(database)
    return Run(sent, stored.leaves, stored.grades, seconds, expected)


async def _expected(client: Client) -> bool:
    return await client.lag("expect") == 0


ANSWERS = tuple(table for table in app.rows if table not in ("reminder", "daily_effect"))
"""The tables that messages fill; into the others rows come when it is time."""


def counts(database: ClickHouse) -> Counts:
    """What the tables show now; nothing while they are not there yet."""
    made = database.command(
        "SELECT count() FROM system.tables WHERE database = currentDatabase() "
        "AND name IN ('leaf_found', 'disease_grade')"
    )
    if made != 2:
        return Counts(0, 0)
    sql = "SELECT (SELECT count() FROM leaf_found), (SELECT count() FROM disease_grade)"
    return Counts(*database.query(sql).result_rows[0])


def contents(
    database: ClickHouse, tables: Sequence[str] = ANSWERS, where: str = "1"
) -> dict[str, tuple[int, int]]:
    """Of each table, how many rows it shows and a hash of them.

    Args:
        database: with the tables.
        tables: their names.
        where: SQL that chooses the rows, in all of them.
    """
    found = {}
    for table in tables:
        sql = f"SELECT count(), sum(cityHash64(_id, COLUMNS('^[^_]'))) FROM {table} WHERE {where}"
        count, digest = database.query(sql).result_rows[0]
        found[table] = (count, digest)
    return found
