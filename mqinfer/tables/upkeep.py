"""Upkeep: what workers do for their tables beside writing: drop old days, merge others.

Every worker does it, and it is harmless that several do: a day is dropped or merged once. What is
refused or fails costs a line in the log, and never a row or a worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from mqinfer.errors import PermissionDenied
from mqinfer.ports import Database
from mqinfer.tables.expiry import drop, expired
from mqinfer.tables.merging import PACE, Pace, merge, rested
from mqinfer.tables.tables import TableSchema

log = structlog.get_logger("mqinfer.tables")


async def keep_up(
    db: Database, schemas: Callable[[], Iterable[TableSchema]], pace: Pace = PACE
) -> None:
    """Drop days that are too old and merge those that rest, until it is cancelled.

    What these credentials may not do to a table is said once, and left to others from then on.

    Args:
        db: that has the tables.
        schemas: of the tables, as they are known now.
        pace: when it looks, and how much is merged.
    """

    async def drop_old(schema: TableSchema) -> None:
        if schema.keep is None:
            return
        for day in await expired(db, schema.storage, schema.keep):
            await drop(db, schema.storage, day)
            log.info("a day was dropped", table=schema.name, day=day)

    async def merge_rested(schema: TableSchema) -> None:
        for day in await rested(db, schema.storage, pace):
            await merge(db, schema.storage, day)

    duties = {
        "old days are not dropped": drop_old,
        "days are not merged, queries of them stay slow": merge_rested,
    }
    denied: set[tuple[str, str]] = set()
    while True:
        await asyncio.sleep(pace.every)
        for schema in schemas():
            for otherwise, duty in duties.items():
                if (schema.name, otherwise) in denied:
                    continue
                try:
                    await duty(schema)
                except PermissionDenied as error:
                    log.warning(otherwise, table=schema.name, reason=str(error))
                    denied.add((schema.name, otherwise))
                except Exception as error:  # noqa: BLE001 - rows are written all the same
                    log.info(otherwise, table=schema.name, reason=str(error))
