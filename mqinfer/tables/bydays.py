"""By days: a table that an earlier version made gets its rows laid by the day of their birth.

Workers go on writing meanwhile, of any version. Three steps for each table:

1. A table by days, under a name that nobody else knows, is filled with what the storage holds.
2. The two exchange their names, at once: it is the storage now, and has all but the last rows.
3. Those are copied from the table that came out of it, when the inserts that had begun have ended;
   then that one is dropped.

Nothing is kept of it but the tables. Killed anywhere, the next one takes over what it finds by
giving it a name of its own, so that nobody else can exchange or drop it: a table by days is filled
on, what came out is emptied into the storage. A table is dropped only by who gave it its name, and
after all of it was copied. Copies are told by key and version: what is there is not copied again,
and what should be copied twice is a repeat like any other.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mqinfer.errors import ConflictError, TableError, Unavailable
from mqinfer.tables import migrate
from mqinfer.tables.sql import quoted, text_literal
from mqinfer.tables.tables import BY_DAYS, TableSchema, widens

if TYPE_CHECKING:
    from mqinfer.message import Row
    from mqinfer.ports import Database

SLICE = 1_000_000  # rows of one statement, about: its memory is bounded by them
_NEARLY: Final = 2.0  # seconds: rows of so little time may be missing for a moment
_ROUNDS: Final = 5  # of copying what came meanwhile
_PATIENCE: Final = 600.0  # seconds that an insert which had begun may take
_MARGIN: Final = 120  # seconds that an insert may take from its rows' `_inserted` to its end

Say = Callable[[str], object]


async def lay_by_days(db: Database, row_type: type[Row], app: str, say: Say) -> bool:
    """Lay the rows of a table by days; False where they lie so.

    Args:
        db: that has the table; a statement may take minutes.
        row_type: of the rows.
        app: whose table it is.
        say: is told how far it is, a line each time.

    Raises:
        ConflictError: the table is another app's, was made by hand in a way of its own, or was
            changed meanwhile.
        TableError: ClickHouse refused a statement, or another process took over; what is done
            stays, run it again.
        PermissionDenied: these credentials may not.
        Unavailable: it does not answer; run it again.
    """
    schema = await migrate.ensure_table(db, row_type, app)
    mine = await _take_over(db, schema)
    if schema.by_days and not mine:
        return False
    try:
        if not schema.by_days:
            await _exchange(db, schema, mine, say)
        for name in list(mine):
            await _quiet(db, schema)
            await _copy(db, schema, name, schema.storage, say)
            await db.command(f"DROP TABLE {quoted(name)} SYNC SETTINGS max_table_size_to_drop = 0")
            del mine[name]
    except TableError as error:
        if all([await migrate.columns(db, name) for name in mine]):
            raise
        raise TableError(f"{schema.name}: another process has taken it over ({error})") from None
    await migrate.ensure_table(db, row_type, app)  # the view
    say(f"{schema.name}: lies by days")
    return True


def _own_name(schema: TableSchema) -> str:
    return f"{schema.storage}__days_{secrets.token_hex(8)}"


async def _take_over(db: Database, schema: TableSchema) -> dict[str, bool]:
    """What others left half done, under names of our own; whether each lies by days."""
    prefix = _own_name(schema)[:-16]
    found = await db.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() "
        "AND startsWith(name, {prefix:String}) AND length(name) = {length:UInt32} ORDER BY name",
        {"prefix": prefix, "length": len(prefix) + 16},
    )
    mine = {}
    for row in found:
        name = _own_name(schema)
        try:
            await db.command(f"RENAME TABLE {quoted(str(row['name']))} TO {quoted(name)}")
        except TableError:
            if await migrate.columns(db, str(row["name"])):
                raise
            continue  # another took it, or it is done
        (key,) = await db.query(
            "SELECT partition_key FROM system.tables "
            "WHERE database = currentDatabase() AND name = {name:String}",
            {"name": name},
        )
        mine[name] = key["partition_key"] == BY_DAYS
    return mine


async def _exchange(db: Database, schema: TableSchema, mine: dict[str, bool], say: Say) -> None:
    """Put a table by days, one of ours or a new one, into the place of the storage."""
    fresh = next((name for name, by_days in mine.items() if by_days), None)
    if fresh is None:
        fresh = await _create(db, schema)
        mine[fresh] = True
    since = await _fill(db, schema, fresh, say)
    await db.command(f"EXCHANGE TABLES {quoted(schema.storage)} AND {quoted(fresh)}")
    await _copy(db, schema, fresh, schema.storage, say, since=since)


async def _create(db: Database, schema: TableSchema) -> str:
    _, storage = await migrate.look(db, schema)
    assert storage is not None
    if storage["engine"] != "ReplacingMergeTree":
        raise ConflictError(
            f"table {schema.storage} was made by hand, with the engine {storage['engine']}: make "
            f"one like it with PARTITION BY {BY_DAYS}, copy the rows and exchange the two"
        )
    name = _own_name(schema)
    await db.command(
        f"CREATE TABLE {quoted(name)} AS {quoted(schema.storage)} "
        f"ENGINE = ReplacingMergeTree(_version) PARTITION BY {BY_DAYS} "
        f"ORDER BY ({', '.join(map(quoted, schema.sorting_key))}) "
        "SETTINGS non_replicated_deduplication_window = 1000 "
        f"COMMENT {text_literal(str(storage['comment']))}"
    )
    return name


async def _fill(db: Database, schema: TableSchema, fresh: str, say: Say) -> str:
    """Copy what the storage holds, until little is missing; since when, as the server says it.

    A column that becomes wider while it is copied could be cut: then the copy is thrown away.
    """
    before = await migrate.columns(db, schema.storage)
    since = ""
    for _ in range(_ROUNDS):
        began, now = time.monotonic(), await _now(db)
        await _copy(db, schema, schema.storage, fresh, say, since=since)
        since = now
        if time.monotonic() - began < _NEARLY:
            break
    if await migrate.columns(db, schema.storage) != before:
        await db.command(f"DROP TABLE {quoted(fresh)} SYNC")
        raise ConflictError(
            f"the columns of {schema.name} were changed while its rows were copied: run it again "
            "when the workers of a new version have started"
        )
    return since


async def _copy(
    db: Database, schema: TableSchema, source: str, target: str, say: Say, *, since: str = ""
) -> None:
    """Copy rows that the target does not have.

    Args:
        db: that has both.
        schema: of both.
        source: to copy from.
        target: to copy into.
        say: is told how far it is.
        since: only rows that were inserted from then on, or a little before.
    """
    await _align(db, source, target)
    names = ", ".join(map(quoted, await migrate.columns(db, source)))
    key = f"sipHash128({', '.join(map(quoted, schema.sorting_key))}, _version)"
    moment = f"toDateTime64({text_literal(since)}, 3, 'UTC') - INTERVAL {_MARGIN} SECOND"
    late = f"_inserted >= {moment}" if since else "1"
    (found,) = await db.query(f"SELECT count() AS n FROM {quoted(source)} WHERE {late}")
    slices = 1 + int(found["n"]) // SLICE
    for number in range(slices):
        part = f"{late} AND sipHash64(_id) % {slices} = {number}"
        await db.command(
            f"INSERT INTO {quoted(target)} ({names}) SELECT {names} FROM {quoted(source)} "
            f"WHERE {part} AND {key} NOT IN (SELECT {key} FROM {quoted(target)} WHERE {part}) "
            "SETTINGS insert_deduplicate = 0, max_partitions_per_insert_block = 0"
        )
        rows = "the last" if since else f"{int(found['n']):,}"
        say(f"{schema.name}: {rows} rows copied, part {number + 1} of {slices}")


async def _align(db: Database, source: str, target: str) -> None:
    """Give the target what columns the source has beyond it."""
    has = await migrate.columns(db, target)
    wanted = await db.query(
        "SELECT name, type, default_kind, default_expression FROM system.columns "
        "WHERE database = currentDatabase() AND table = {table:String} ORDER BY position",
        {"table": source},
    )
    for column in wanted:
        name, type_ = str(column["name"]), str(column["type"])
        if name not in has:
            default = f" {column['default_kind']} {column['default_expression']}".rstrip()
            change = f"ADD COLUMN IF NOT EXISTS {quoted(name)} {type_}{default}"
        elif has[name] != type_ and widens(has[name], type_):
            change = f"MODIFY COLUMN {quoted(name)} {type_}"
        else:
            continue
        await db.command(f"ALTER TABLE {quoted(target)} {change}")


async def _quiet(db: Database, schema: TableSchema) -> None:
    """Wait for the inserts that had begun: they may still go to the table that came out."""
    began = time.monotonic()
    while True:
        waited = time.monotonic() - began
        (found,) = await db.query(
            "SELECT count() AS n FROM system.processes WHERE query_kind = 'Insert' "
            "AND position(query, {storage:String}) > 0 AND elapsed >= {waited:Float64}",
            {"storage": schema.storage, "waited": waited},
        )
        if not found["n"]:
            return
        if waited > _PATIENCE:
            raise Unavailable(f"an insert into {schema.storage} does not end: run it again later")
        await asyncio.sleep(0.25)


async def _now(db: Database) -> str:
    (row,) = await db.query("SELECT toString(now64(3, 'UTC')) AS now")
    return str(row["now"])
