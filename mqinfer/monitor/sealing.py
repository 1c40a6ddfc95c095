"""Sealing: hours that are over are counted for good, from what the tables keep.

A seal is one question to a table, FINAL, so that a row is counted once whatever came twice; its
answer counts when a line says so, so that a death on the way leaves an hour as it was. An hour
into which rows came late is sealed again, and so is a later one in which they had been counted
(of copies the one that the stream stored first is kept). Nothing is kept of it but the seals: any
worker may do it, also several at once.
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
from mqinfer.monitor import counting, seals
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
    due = {
        _text(row["hour"]): bool(row["late"])
        for row in await db.query(seals.hours_sql(schema, days, rest))
    }
    found: dict[str, tuple[str, ...]] = {}
    for hour, late in due.items():
        if late:
            # First, as the hour stays due until its own seal: whoever dies before leaves no trace.
            for other in await _moved(db, schema, hour) - due.keys():
                found[other] = await _seal(db, watched, schema, other)
        found[hour] = await _seal(db, watched, schema, hour)
    return found


async def _moved(db: Database, schema: TableSchema, hour: str) -> set[str]:
    """Later hours that rows of this one were counted in."""
    (told,) = await db.query(seals.days_sql(schema, hour))
    rows = await db.query(seals.moved_sql(schema, hour, told["days"]))
    return {_text(row["hour"]) for row in rows}


async def _seal(db: Database, watched: Watched, schema: TableSchema, hour: str) -> tuple[str, ...]:
    (told,) = await db.query(seals.days_sql(schema, hour))
    days, made = told["days"], str(told["now"])
    name = uuid.uuid4().hex
    refused: tuple[str, ...] = ()
    rows: dict[str, int] = {}
    if days:  # else all that it had moved to earlier ones
        (keys,) = await db.query(seals.keys_sql(schema, watched.fields, hour, days))
        refused = tuple(
            field.column
            for number, field in enumerate(watched.fields)
            if keys[f"k{number}"] > counting.MOST_KEYS
        )
        # Before they are counted: if a row moves in between, the hour is sealed once too often.
        rows = {row["day"]: row["n"] for row in await db.query(seals.rows_sql(schema, hour, days))}
        fields = [field for field in watched.fields if field.column not in refused]
        if fields:
            await db.command(seals.seal_sql(schema, fields, hour, days, name))
    await db.command(seals.sealed_sql(schema.name, hour, name, made, refused, rows))
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
