"""Reset: an app's streams, states and rows are deleted, so that it begins anew.

For whoever works on an app. It asks for what there is, and then deletes that: the streams first,
so that nothing is stored any more, then the tables. Killed half way, it can be run again. Blobs in
a folder or a cloud stay where they are, and so does what `mqinfer deploy` has written down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mqinfer import plan
from mqinfer.completion import roots
from mqinfer.errors import ConflictError
from mqinfer.inference import aliases
from mqinfer.jobs import places as places_of_jobs
from mqinfer.monitor import counting, kept
from mqinfer.replay import coverage, runs
from mqinfer.requests import places
from mqinfer.search import places as places_of_indexes
from mqinfer.tables import migrate
from mqinfer.tables.owners import owners_of
from mqinfer.tables.sql import quoted
from mqinfer.tables.tables import DeadLetterRow, schema_of
from mqinfer.timers.places import stream_of as timers_stream

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.message import Row
    from mqinfer.ports import Database


class Streams(Protocol):
    """What a reset needs of JetStream."""

    async def stream_info(self, stream: str) -> dict[str, Any] | None:
        """Configuration and state of a stream, or None."""

    async def stream_names(self) -> list[str]:
        """The streams that there are."""

    async def delete_stream(self, stream: str) -> None:
        """Delete a stream, if it is there."""


@dataclass(frozen=True, slots=True)
class Held:
    """What an app has.

    Attributes:
        streams: messages, or values of a bucket, by stream.
        tables: rows that lie in it, by table; a table of several apps is not told.
    """

    streams: dict[str, int]
    tables: dict[str, int]


async def held(app: App, broker: Streams, db: Database) -> Held:
    """What an app has, and a reset deletes.

    Args:
        app: whose.
        broker: the connection to NATS.
        db: that has the tables.

    Raises:
        Unavailable: a server does not answer.
        ConflictError: a table belongs to another app, too.
    """
    streams = {}
    for name in await _streams(app, broker):
        info = await broker.stream_info(name)
        if info is not None:
            streams[name] = int(info["state"]["messages"])
    tables = {}
    for row in app.rows.values():
        schema = schema_of(row)
        _, storage = await migrate.look(db, schema)
        if storage is None:
            continue
        others = [one for one in owners_of(str(storage["comment"])) if one != app.name]
        if others:
            raise ConflictError(
                f"table {schema.name} has rows of {', '.join(others)}, too, and is not deleted: "
                "drop or empty it yourself, or give the apps tables of their own"
            )
        found = await db.query(f"SELECT count() AS n FROM {quoted(schema.storage)}")
        tables[schema.name] = int(found[0]["n"])
    return Held(streams, tables)


async def reset(app: App, what: Held, broker: Streams, db: Database) -> None:
    """Delete what an app has.

    Args:
        app: whose.
        what: as `held` found it.
        broker: the connection to NATS.
        db: that has the tables.

    Raises:
        Unavailable: a server does not answer; run it again.
        TableError, PermissionDenied: ClickHouse refused a statement.
    """
    for name in what.streams:
        await broker.delete_stream(name)
    if not app.rows:  # it needs no ClickHouse, and there may be none
        return
    for row in app.rows.values():
        await _drop(db, row)
    for table in (DeadLetterRow, coverage.RunInput):
        await _take_out(db, schema_of(table).storage, "app", [app.name])
    for name in (kept.REFERENCES, kept.SAYINGS, kept.EPISODES):
        await _take_out(db, name, "app", [app.name])
    tables = [schema_of(row).name for row in app.rows.values()]
    for name in counting.COLUMNS:
        await _take_out(db, name, "table", tables)


async def _streams(app: App, broker: Streams) -> list[str]:
    """The streams, and buckets, that an app may have; those of ordered types are looked for."""
    buckets = (
        plan.state_bucket(app),
        plan.workers_bucket(app),
        plan.schedule_bucket(app),
        plan.memory_bucket(app),
        plan.owners_bucket(app),
        aliases.bucket(app),
        roots.bucket(app),
        runs.bucket(app),
        places.bucket(app),
        places_of_jobs.bucket(app),
        places_of_indexes.bucket(app),
    )
    known = [app.name, f"{app.name}-dead", roots.stream(app), places.stream(app)]
    known += [timers_stream(app.name), *(f"KV_{one}" for one in buckets), f"OBJ_{app.name}-blobs"]
    copies = [one for one in await broker.stream_names() if one.startswith(f"{app.name}-ordered-")]
    return [*copies, *known]


async def _drop(db: Database, row: type[Row]) -> None:
    schema = schema_of(row)
    await db.command(f"DROP VIEW IF EXISTS {quoted(counting.view_of(schema))}")
    await db.command(f"DROP VIEW IF EXISTS {quoted(schema.name)}")
    await db.command(f"DROP TABLE IF EXISTS {quoted(schema.storage)}")


async def _take_out(db: Database, table: str, column: str, values: list[str]) -> None:
    """Delete rows of a table that several apps share, if it is there."""
    if await migrate.columns(db, table):
        await db.command(
            f"DELETE FROM {quoted(table)} WHERE {quoted(column)} IN {{values:Array(String)}}",
            {"values": values},
        )
