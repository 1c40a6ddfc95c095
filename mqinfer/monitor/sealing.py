"""Sealing: hours that are over are counted for good, from what the tables keep.

A seal is one question to a table, FINAL, so that a row is counted once whatever came twice; its
answer counts when a line says so, so that a death on the way leaves an hour as it was. An hour
into which rows came late is sealed again. Nothing is kept of it but the seals: any worker may do
it, also several at once.
"""

from __future__ import annotations

import asyncio
import datetime
import random
import time
import uuid
from typing import TYPE_CHECKING, Final

import structlog

from mqinfer.errors import MqinferError, PermissionDenied
from mqinfer.monitor import counting
from mqinfer.monitor.places import ensure_counts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mqinfer.monitor.watched import Watched
    from mqinfer.ports import Database
    from mqinfer.tables.tables import TableSchema

log = structlog.get_logger("mqinfer.monitor")

REST: Final = 900  # seconds after its end that an hour is sealed
DAYS: Final = 31  # that are looked back
_HOUR: Final = 3600.0
_SOON: Final = 60.0  # seconds after a look that failed


async def seal(
    db: Database, watched: Watched, schema: TableSchema, *, rest: int = REST, days: int = DAYS
) -> dict[str, tuple[str, ...]]:
    """Seal the hours of a table that are due.

    Args:
        db: that has the table.
        watched: the table.
        schema: of the table as it is there.
        rest: seconds after its end that an hour is sealed.
        days: that are looked back.

    Returns:
        The hours that were sealed, as ClickHouse writes them, each with the columns that were
        refused since they have too many values.

    Raises:
        TableError, PermissionDenied, Unavailable: ClickHouse refused or does not answer; what is
            done stays.
    """
    due = {_text(row["hour"]) for row in await db.query(counting.hours_sql(schema, days, rest))}
    found: dict[str, tuple[str, ...]] = {}
    while due:
        hour = min(due)
        due.remove(hour)
        (told,) = await db.query(counting.days_sql(schema, hour))
        parts, now = told["days"], str(told["now"])
        others = await db.query(counting.shared_sql(schema, hour, parts))
        due |= {_text(row["hour"]) for row in others} - found.keys()
        found[hour] = await _seal(db, watched, schema, hour, parts, now)
    return found


async def _seal(
    db: Database, watched: Watched, schema: TableSchema, hour: str, days: Sequence[str], now: str
) -> tuple[str, ...]:
    (keys,) = await db.query(counting.keys_sql(schema, watched.fields, hour, days))
    refused = tuple(
        field.column
        for number, field in enumerate(watched.fields)
        if keys[f"k{number}"] > counting.MOST_KEYS
    )
    fields = [field for field in watched.fields if field.column not in refused]
    name = uuid.uuid4().hex
    if fields:
        await db.command(counting.seal_sql(schema, fields, hour, days, name))
    await db.command(counting.sealed_sql(schema.name, hour, name, now, refused))
    return refused


def _text(moment: object) -> str:
    assert isinstance(moment, datetime.datetime)
    return moment.strftime("%Y-%m-%d %H:%M:%S")


async def keep_counts(db: Database, watched: Sequence[Watched], app: str) -> None:
    """Have the rows of some tables counted, and seal their hours, until it is cancelled.

    What goes wrong costs a line in the log, and neither a row nor a worker.

    Args:
        db: that has the tables.
        watched: the tables.
        app: whose they are.
    """
    refused: dict[str, tuple[str, ...]] = {}
    told: set[str] = set()
    while True:
        wait = (REST - time.time()) % _HOUR + _SOON
        for one in watched:
            table = str(one.row.__mqinfer__.table)
            try:
                schema = await ensure_counts(db, one, app, refused.get(table, ()))
                await _find_centroids(db, one, schema)
                hours = await seal(db, one, schema)
                if hours:
                    refused[table] = _refused(table, hours, refused.get(table, ()))
            except PermissionDenied as error:
                if table not in told:
                    log.warning("its rows are not counted", table=table, reason=str(error))
                told.add(table)
            except MqinferError as error:
                log.info("its rows are not counted now", table=table, reason=str(error))
                wait = _SOON
            except Exception as error:  # noqa: BLE001 - rows are written all the same
                log.warning("its rows are not counted now", table=table, reason=repr(error))
                wait = _SOON
        # Workers that were started together need not all ask at once.
        await asyncio.sleep(wait + random.uniform(0, _SOON))


async def _find_centroids(db: Database, watched: Watched, schema: TableSchema) -> None:
    if any(field.what == "embedding" for field in watched.fields):
        from mqinfer.monitor.centroids import ensure_centroids  # which needs NumPy

        for found in await ensure_centroids(db, watched, schema):
            log.info("centroids of vectors were found", table=schema.name, of=found)


def _refused(
    table: str, hours: dict[str, tuple[str, ...]], before: tuple[str, ...]
) -> tuple[str, ...]:
    """The columns that the newest of the hours refuses; each is told once."""
    newest = hours[max(hours)]
    for column in newest:
        if column not in before:
            log.warning(
                "a column is not counted",
                table=table,
                column=column,
                reason=f"it has more than {counting.MOST_KEYS:,} values in an hour: a label is one "
                "of few; take its marker away, or mark a number as float",
            )
    return newest
