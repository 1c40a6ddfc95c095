"""Expiry: the days of birth of a table that are older than its `keep=` are dropped, whole.

A day that is dropped costs what a folder costs to delete. Rows that are born on such a day and come
later (a replay of old inputs, a dead letter that is sent back) are stored, and dropped at the next
look. Rows without a birth are kept, and so is all of a table that has no days. What is old is told
by the server's clock, so that a worker's own may be wrong.
"""

from __future__ import annotations

from mqinfer.ports import Database
from mqinfer.tables.sql import quoted, text_literal
from mqinfer.tables.tables import FROM_DAYS


async def expired(db: Database, storage: str, keep: float) -> list[str]:
    """Ids of the days that ended `keep` seconds ago or longer, the oldest first.

    Raises:
        TableError, PermissionDenied, Unavailable: the server does not say.
    """
    rows = await db.query(
        f"SELECT DISTINCT partition_id {FROM_DAYS} "
        "AND toDateOrZero(partition) > toDate(0) AND dateDiff('second', "
        "toDateTime64(toDateOrZero(partition) + 1, 0, 'UTC'), now64(0, 'UTC')) >= {keep:Float64} "
        "ORDER BY partition_id",
        {"storage": storage, "keep": keep},
    )
    return [str(row["partition_id"]) for row in rows]


async def drop(db: Database, storage: str, partition: str) -> None:
    """Drop one day; nothing happens if it is gone already.

    Raises:
        TableError: the server refused it.
        PermissionDenied: these credentials may not.
        Unavailable: it does not answer, or not in time.
    """
    await db.command(
        f"ALTER TABLE {quoted(storage)} DROP PARTITION ID {text_literal(partition)} "
        "SETTINGS max_partition_size_to_drop = 0"
    )
