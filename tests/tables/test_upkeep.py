"""Upkeep: what a worker does for tables is done once, found again, and never a reason to stop."""

from __future__ import annotations

import asyncio
import datetime
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import structlog

from mqinfer import App, Row
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.errors import PermissionDenied, TableError, Unavailable
from mqinfer.ports import Origin
from mqinfer.settings import Settings
from mqinfer.tables.expiry import expired
from mqinfer.tables.merging import merge, rested
from mqinfer.tables.sink import Sink
from mqinfer.tables.tables import TableSchema, schema_of
from mqinfer.tables.upkeep import keep_up
from mqinfer.testing import Harness, until
from mqinfer.worker import worker
from tests.support.replay import Number
from tests.tables.test_days import Grade, item, shown
from tests.tables.test_merging import AT_ONCE, STORAGE, own_merges, written


def tables() -> list[TableSchema]:
    return [schema_of(Grade)]


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class Failing:
    """A database that fails at its first commands."""

    def __init__(self, db: ClickHouse, *errors: Exception | None):
        self._db = db
        self._errors = list(errors)
        self.asked = 0
        self.query = db.query

    async def command(self, sql: str, parameters: Any = None) -> None:
        self.asked += 1
        if self._errors and (error := self._errors.pop(0)):
            raise error
        await self._db.command(sql, parameters)


async def test_what_was_not_merged_is_found_again(db: ClickHouse) -> None:
    await written(db, 1, 2, 3)
    # The server is away, and then refuses to merge, which it is told to.
    failing: Any = Failing(db, Unavailable("away"))
    task = asyncio.create_task(keep_up(failing, tables, AT_ONCE))

    async def merged() -> bool:
        return await rested(db, STORAGE, AT_ONCE) == []

    await until(lambda: failing.asked >= 4)
    assert len(await rested(db, STORAGE, AT_ONCE)) == 3
    await own_merges(db, "START")
    await until(merged)
    await ended(task)
    # Cancelled, as by a kill, while the server merges: another finds it, or finds it done.
    sink = Sink(db, Grade)
    await sink.write([item(10, 1)])
    task = asyncio.create_task(merge(db, STORAGE, "20260528"))
    await asyncio.sleep(0)
    await ended(task)
    others = [asyncio.create_task(keep_up(db, tables, AT_ONCE)) for _ in range(3)]
    await until(merged)
    for other in others:
        await ended(other)
    expected = {f"id-{10 * day + n}": 3 for day in (1, 2, 3) for n in (0, 1)}
    assert await shown(db) == expected | {"id-10": 10}


async def test_what_these_credentials_may_not_do_is_said_once(db: ClickHouse) -> None:
    await written(db, 1)
    denied: Any = Failing(db, PermissionDenied("no OPTIMIZE"))
    looks: list[TableSchema] = []

    def looked() -> list[TableSchema]:
        looks.extend(tables())
        return tables()

    with structlog.testing.capture_logs() as logs:
        task = asyncio.create_task(keep_up(denied, looked, AT_ONCE))
        await until(lambda: len(looks) > 3)
        await ended(task)
    assert denied.asked == 1
    assert [log["log_level"] for log in logs] == ["warning"]


async def test_no_error_ends_it(db: ClickHouse) -> None:
    await written(db, 1)
    failing: Any = Failing(db, RuntimeError("a bug"), TableError("too large"))
    with structlog.testing.capture_logs() as logs:
        task = asyncio.create_task(keep_up(failing, tables, AT_ONCE))
        await until(lambda: failing.asked > 2)
        await ended(task)
    assert [log["reason"] for log in logs][:2] == ["a bug", "too large"]


# --- keep= --------------------------------------------------------------------------------------


class Kept(Row, frozen=True, table="kept", keep="90d"):
    value: int


def aged(number: int, days: float | None, **more: Any) -> tuple[Row, Origin]:
    """A row that was born days ago; None: nobody knows when."""
    root = f"input-{number}"
    if days is not None:
        born = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
        root += f"@{born.date()}"
    return Kept(number), Origin(id=f"id-{number}", ancestors=(root,), published=1, **more)


async def values(db: ClickHouse) -> list[int]:
    return [row["value"] for row in await db.query("SELECT value FROM kept ORDER BY value")]


async def test_days_that_are_too_old_are_dropped_and_late_rows_of_them_too(
    db: ClickHouse,
) -> None:
    schema = schema_of(Kept)
    assert schema.keep == 90 * 86_400
    sink = Sink(db, Kept)
    rows = [aged(0, 0), aged(1, 89), aged(2, 92), aged(3, 2000), aged(4, None), aged(5, -3)]
    assert await sink.write(rows) == {}
    assert len(await expired(db, schema.storage, schema.keep)) == 2
    assert await expired(db, schema.storage, schema.keep + 10 * 86_400) != []
    tasks = [asyncio.create_task(keep_up(db, lambda: [schema], AT_ONCE)) for _ in range(3)]

    async def young() -> bool:
        return await values(db) == [0, 1, 4, 5]

    await until(young)
    # Replays of old inputs: stored, and dropped at the next look.
    assert await sink.write([aged(2, 92, run="again"), aged(6, 500)]) == {}

    async def gone() -> bool:
        (lie,) = await db.query("SELECT count() AS n FROM kept__storage")
        return bool(lie["n"] == 4)

    await until(gone)
    assert await values(db) == [0, 1, 4, 5]
    for task in tasks:
        await ended(task)


async def test_nothing_is_dropped_where_nothing_is_said_or_there_are_no_days(
    db: ClickHouse,
) -> None:
    flat = replace(schema_of(Kept), by_days=False)
    await db.command(flat.create_storage())
    await Sink(db, Kept).write([aged(1, 2000)])
    await written(db, 1)
    task = asyncio.create_task(keep_up(db, lambda: [flat, schema_of(Grade)], AT_ONCE))

    async def merged() -> bool:  # so it has looked
        return await rested(db, STORAGE, AT_ONCE) == []

    await own_merges(db, "START")
    await until(merged)
    await ended(task)
    assert await values(db) == [1]
    assert len(await shown(db)) == 2


# --- in a worker --------------------------------------------------------------------------------


async def test_a_worker_merges_the_tables_of_its_sinks(
    nats: Settings, db: ClickHouse, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "keep_up", partial(keep_up, pace=AT_ONCE))
    settings = Settings.load({}, nats_url=nats.nats_url, blobs=nats.blobs, clickhouse_url=url)
    app = App("merging")

    @app.stage
    async def grade(number: Number) -> Grade:
        return Grade("p", number.value)

    async def merged() -> bool:
        parts = await db.query(
            "SELECT min(level) AS level, count() AS n, sum(rows) AS rows FROM system.parts "
            "WHERE database = currentDatabase() AND table = 'grade__storage' AND active "
            "GROUP BY partition_id"
        )
        levels = [(part["level"] > 0, part["n"]) for part in parts]
        return sum(part["rows"] for part in parts) == 3 and set(levels) == {(True, 1)}

    async with Harness(app, settings) as harness, harness.worker():
        for number in range(3):
            await harness.publish(Number(number))
        await until(merged)
    assert len(await db.query("SELECT * FROM grade")) == 3
