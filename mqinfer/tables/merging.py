"""Merging: partitions that rest become one part each, which FINAL passes over.

Whoever reads a partition of several parts merges them while reading, for every query again; one
part that came of a merge is read as it lies. ClickHouse's own merges stop at a handful of parts. So
each worker looks at the tables of its sinks now and then (`upkeep`), and has the server merge what
rests. Nothing is kept of it but what the server's own list of parts says: a merge that was killed
is found again, a late row makes its day one to be merged again, and two that ask for one merge have
it once.

It is bounded: one partition at a time, none that is too large, and a large one only when it has
rested for many times as long as its merge takes, so that days into which late rows still come are
not written again and again.
"""

from __future__ import annotations

from dataclasses import dataclass

from mqinfer.ports import Database
from mqinfer.tables.sql import quoted, text_literal
from mqinfer.tables.tables import FROM_DAYS, UNMERGED


@dataclass(frozen=True, slots=True)
class Pace:
    """When a partition is merged.

    Attributes:
        every: seconds between looks at a table.
        rest: seconds for which no row came, and nothing was merged, at least.
        bytes_a_second: that a merge goes through, as taken for granted.
        share: of the time that merges of one partition may take: a partition whose merge takes
            10 seconds rests 10 / `share` first.
        max_bytes: a larger partition is left to the server's own merges.
    """

    every: float = 60.0
    rest: float = 60.0
    bytes_a_second: float = 20e6
    share: float = 0.05
    max_bytes: float = 50e9


PACE = Pace()


async def rested(db: Database, storage: str, pace: Pace = PACE) -> list[str]:
    """Ids of the days that rest and are to be merged, the smallest first; none without days.

    Raises:
        TableError, PermissionDenied, Unavailable: the server does not say.
    """
    rows = await db.query(
        f"SELECT partition_id {FROM_DAYS} "
        "AND partition_id NOT IN ("
        "SELECT partition_id FROM system.merges "
        "WHERE database = currentDatabase() AND table = {storage:String}) "
        f"GROUP BY partition_id HAVING ({UNMERGED}) "
        "AND sum(bytes_on_disk) <= {most:Float64} "
        "AND dateDiff('second', max(modification_time), now()) "
        ">= greatest({rest:Float64}, floor(sum(bytes_on_disk) / {pace:Float64})) "
        "ORDER BY sum(bytes_on_disk), partition_id",
        {
            "storage": storage,
            "most": pace.max_bytes,
            "rest": pace.rest,
            "pace": pace.bytes_a_second * pace.share,
        },
    )
    return [str(row["partition_id"]) for row in rows]


async def merge(db: Database, storage: str, partition: str) -> None:
    """Have one partition merged to one part; the server goes on if nobody waits for it.

    Raises:
        TableError: the server refused it.
        PermissionDenied: these credentials may not.
        Unavailable: it does not answer, or not in time.
    """
    await db.command(
        f"OPTIMIZE TABLE {quoted(storage)} PARTITION ID {text_literal(partition)} FINAL"
    )
