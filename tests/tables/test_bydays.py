"""By days: a table of an earlier version is laid anew while workers write, whoever is killed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.errors import ConflictError, TableError, Unavailable
from mqinfer.tables import bydays, migrate
from mqinfer.tables.bydays import lay_by_days
from mqinfer.tables.sink import Sink
from mqinfer.tables.tables import ONE_DAY_AT_A_TIME, generation_sql, schema_of
from mqinfer.tables.tables import version_sql as moved_to
from mqinfer.testing import until
from tests.tables.test_days import Grade, item, made_before, partitions, shown, view_of

STORAGE = "grade__storage"


class Killed(Exception):
    """The process that lays the table ends here."""


class Killing:
    """A database whose user is killed at one of its statements: before it, or in the midst."""

    cluster = None

    def __init__(self, db: ClickHouse, at: int, *, midst: bool = False):
        self._db = db
        self._left = at
        self._midst = midst
        self.inserted = False  # when it was killed
        self.query = db.query

    async def command(self, sql: str, parameters: Any = None) -> None:
        self._left -= 1
        if self._left < 0:
            self.inserted = sql.startswith("INSERT")
            if self._midst and self.inserted:
                await self._db.command(sql.replace(" SETTINGS ", " LIMIT 3 SETTINGS "), parameters)
            raise Killed
        await self._db.command(sql, parameters)


async def tables_of(db: ClickHouse) -> set[str]:
    rows = await db.query("SELECT name FROM system.tables WHERE database = currentDatabase()")
    return {str(row["name"]) for row in rows}


async def promoted(db: ClickHouse, number: int, shown: int) -> None:
    await db.command(
        f"INSERT INTO {STORAGE} SELECT * REPLACE ({shown} AS _visible, "
        f"{moved_to(f'{generation_sql()} + 1')} AS _version) "
        f"FROM (SELECT * FROM {STORAGE} FINAL WHERE _id = 'id-{number}') "
        "SETTINGS insert_deduplicate = 0"
    )


async def laid(db: Any) -> list[str]:
    said: list[str] = []
    assert await lay_by_days(db, Grade, "app", said.append)
    return said


async def filled_before(db: ClickHouse) -> dict[str, int]:
    """A table of the version before, with repeats, and rows that a promotion hid; what it shows."""
    for table in await tables_of(db):
        await db.command(f"DROP TABLE {table} SYNC")
    await made_before(db)
    sink = Sink(db, Grade)
    await sink.write([item(n, n % 3 if n % 4 else None) for n in range(20)])
    await sink.write([item(n, n % 3 if n % 4 else None, -1, 2**61) for n in range(0, 20, 2)])
    await promoted(db, 7, 0)
    await promoted(db, 8, 0)
    await promoted(db, 8, 1)
    expected = {f"id-{n}": n for n in range(20) if n != 7}
    assert await shown(db) == expected
    return expected


async def test_what_the_view_shows_stays_what_it_was(db: ClickHouse) -> None:
    expected = await filled_before(db)
    said = await laid(db)
    assert await shown(db) == expected
    days = await partitions(db)
    assert list(days) == ["1970-01-01", "2026-05-27", "2026-05-28", "2026-05-29"]
    assert ONE_DAY_AT_A_TIME in await view_of(db)
    assert await tables_of(db) == {"grade", STORAGE}
    assert said[0].startswith("grade: 33 rows copied, part 1 of 1")
    assert said[-1] == "grade: lies by days"
    # Repeats of what lay there before find it: of a late worker, and of a promotion's undoing.
    await Sink(db, Grade).write([item(n, n % 3 if n % 4 else None, -2, 2**61) for n in range(20)])
    assert await shown(db) == expected
    await promoted(db, 7, 1)
    assert await shown(db) == expected | {"id-7": 7}
    _, storage = await migrate.look(db, schema_of(Grade))
    assert storage is not None
    assert storage["comment"] == "mqinfer: app app"
    assert not await lay_by_days(db, Grade, "app", said.append)


async def test_killed_at_any_statement_and_run_again_it_ends_right(db: ClickHouse) -> None:
    inserts: list[int] = []
    for midst in (False, True):
        # Of all statements but an INSERT there is no midst: they would be the same once more.
        for at in list(inserts) if midst else range(100):
            expected = await filled_before(db)
            sink, late = Sink(db, Grade), 30 + at
            await sink.prepare()
            first, second = (Killing(db, n, midst=midst) for n in (at, at // 2 + 1))
            try:
                await laid(first)
            except Killed:
                pass
            else:
                break
            assert (await shown(db)).keys() <= expected.keys()
            # Meanwhile workers go on, with what they know of the table.
            await sink.write([item(late, 2), item(3, 0, -3, 2**61), item(5, 2, -3, 2**61)])
            with contextlib.suppress(Killed, AssertionError):  # another took over, killed as well
                await laid(second)
            if first.inserted or second.inserted:
                inserts.append(at)
            await sink.write([item(late + 1, 1)])
            try:
                await laid(db)
            except AssertionError:  # all was done but for the answer
                assert not await lay_by_days(db, Grade, "app", print)
            assert await shown(db) == expected | {f"id-{late}": late, f"id-{late + 1}": late + 1}
            assert await tables_of(db) == {"grade", STORAGE}
            assert ONE_DAY_AT_A_TIME in await view_of(db)
        assert midst or at > 5
    assert inserts


async def test_two_at_once_beside_workers_lose_nothing(
    db: ClickHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bydays, "SLICE", 20)
    expected = await filled_before(db)
    written, stop = dict(expected), asyncio.Event()

    async def writes(first: int) -> None:
        sink, number = Sink(db, Grade), first
        while not stop.is_set():
            await sink.write([item(number, number % 5), item(number - 2, (number - 2) % 5, -1)])
            written[f"id-{number}"] = number
            number += 2

    async def lays(tries: int) -> None:
        for _ in range(tries):
            try:
                await lay_by_days(db, Grade, "app", lambda _: None)
            except TableError as error:
                if "another process has taken it over" not in str(error):
                    raise
            else:
                return

    workers = [asyncio.create_task(writes(1000 + one)) for one in range(2)]
    await until(lambda: len(written) > len(expected) + 2)
    async with asyncio.timeout(240):
        await asyncio.gather(lays(1), lays(9))
    many = len(written)
    await until(lambda: len(written) > many + 2)
    stop.set()
    await asyncio.gather(*workers)
    found = await shown(db)
    assert found.keys() == written.keys() | {"id-998", "id-999"}
    assert await tables_of(db) == {"grade", STORAGE}
    assert "2026-05-31" in await partitions(db)


class Changing(Killing):
    """A database of which a new version makes a column wider while it is copied."""

    async def command(self, sql: str, parameters: Any = None) -> None:
        if sql.startswith("INSERT"):
            await self._db.command(f"ALTER TABLE {STORAGE} ADD COLUMN IF NOT EXISTS b UInt8")
        await self._db.command(sql, parameters)


async def test_columns_that_change_meanwhile_have_it_begin_anew(db: ClickHouse) -> None:
    expected = await filled_before(db)
    with pytest.raises(ConflictError, match="run it again"):
        await laid(Changing(db, 0))
    assert await tables_of(db) == {"grade", STORAGE}
    await laid(db)
    assert await shown(db) == expected
    assert "b" in await migrate.columns(db, STORAGE)


class Inserting(Killing):
    """A database in which an insert begins before the exchange and ends after it."""

    slow: asyncio.Task[None] | None = None

    async def command(self, sql: str, parameters: Any = None) -> None:
        if sql.startswith("EXCHANGE"):
            self.slow = asyncio.create_task(
                self._db.command(
                    f"INSERT INTO {STORAGE} (position, grade, _id, _ancestors, _visible, _version) "
                    "SELECT 'p', 77, 'slow', ['input@2026-05-27'], 1, 1 + sleepEachRow(2) "
                    "FROM numbers(1)"
                )
            )
            await until(self.under_way)
        await self._db.command(sql, parameters)

    async def under_way(self) -> bool:
        rows = await self._db.query(
            "SELECT 1 FROM system.processes WHERE query_kind = 'Insert' "
            "AND position(query, {storage:String}) > 0",
            {"storage": STORAGE},
        )
        return bool(rows) or (self.slow is not None and self.slow.done())


async def test_an_insert_that_had_begun_is_waited_for(db: ClickHouse) -> None:
    expected = await filled_before(db)
    inserting = Inserting(db, 0)
    await laid(inserting)
    assert inserting.slow is not None
    await inserting.slow
    assert await shown(db) == expected | {"slow": 77}
    assert await tables_of(db) == {"grade", STORAGE}


async def test_an_insert_that_does_not_end_leaves_what_came_out_for_the_next(
    db: ClickHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = await filled_before(db)
    monkeypatch.setattr(bydays, "_PATIENCE", 0.0)
    endless: Any = Killing(db, 100)

    async def query(sql: str, parameters: Any = None) -> list[dict[str, Any]]:
        return [{"n": 1}] if "system.processes" in sql else await db.query(sql, parameters)

    endless.query = query
    with pytest.raises(Unavailable, match="run it again later"):
        await laid(endless)
    assert len(await tables_of(db)) == 3
    await laid(db)
    assert await shown(db) == expected
    assert await tables_of(db) == {"grade", STORAGE}


async def test_a_table_of_another_engine_is_its_makers(
    db: ClickHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled_before(db)
    look = migrate.look

    async def replicated(*arguments: Any) -> Any:
        view, storage = await look(*arguments)
        return view, {**(storage or {}), "engine": "ReplicatedReplacingMergeTree"}

    monkeypatch.setattr(migrate, "look", replicated)
    with pytest.raises(ConflictError, match="made by hand"):
        await laid(db)
    assert await tables_of(db) == {"grade", STORAGE}
