"""What lies in the tables of an app, by days, and what a deletion of old ones would take."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest

from mqinfer import App, Message, Row
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.errors import ConflictError
from mqinfer.operate.tables import StoredTable, lay_all_by_days, stored
from mqinfer.tables.sink import Sink
from mqinfer.tables.tables import schema_of
from tests.tables.test_days import Grade, item


class Word(Message, subject="word"):
    text: str


class Flat(Row, frozen=True, table="flat"):
    text: str


async def test_rows_days_and_what_a_deletion_would_take(db: ClickHouse) -> None:
    app = App("stored")

    @app.stage
    async def both(word: Word) -> Grade | Flat:
        raise AssertionError

    names = ["grade", "flat", "mqinfer_dead_letters"]
    empty = await stored(app, db)
    assert empty == [StoredTable(name, exists=False) for name in names]

    await db.command(replace(schema_of(Flat), by_days=False).create_storage())
    await db.command("INSERT INTO flat__storage (text, _id) VALUES ('a', '1'), ('b', '2')")
    sink = Sink(db, Grade)
    await sink.prepare()
    await db.command("SYSTEM STOP MERGES grade__storage")
    # Three days, the first one twice over, and rows without a birth.
    await sink.write([item(n, n % 3) for n in range(30)])
    await sink.write([item(n, 0) for n in range(0, 6, 3)])
    await sink.write([item(n, None) for n in range(100, 104)])
    before = datetime.date(2026, 5, 29)
    grade, flat, _ = await stored(app, db, before)
    assert (flat.by_days, flat.rows, flat.oldest, flat.old_rows) == (False, 2, None, 0)
    assert flat.bytes > 0
    (lie,) = await db.query(
        "SELECT sum(parts.rows) AS rows, count() AS parts, sum(bytes_on_disk) AS bytes, "
        "sumIf(parts.rows, partition IN ('2026-05-27', '2026-05-28')) AS old_rows, "
        "sumIf(bytes_on_disk, partition IN ('2026-05-27', '2026-05-28')) AS old_bytes "
        "FROM system.parts WHERE active AND database = currentDatabase() "
        "AND table = 'grade__storage'"
    )
    assert grade == StoredTable(
        "grade",
        exists=True,
        unmerged=3,
        oldest=datetime.date(2026, 5, 27),
        newest=datetime.date(2026, 5, 29),
        no_birth=4,
        old_days=2,
        **lie,
    )
    # It is what a deletion takes.
    for day in ("2026-05-27", "2026-05-28"):
        await db.command(f"ALTER TABLE grade__storage DROP PARTITION '{day}'")
    left, _, _ = await stored(app, db, before)
    assert left.rows == lie["rows"] - lie["old_rows"]
    assert left.bytes == lie["bytes"] - lie["old_bytes"]
    assert (left.old_days, left.old_rows, left.old_bytes) == (0, 0, 0)
    await db.command("SYSTEM START MERGES grade__storage")
    await db.command("OPTIMIZE TABLE grade__storage FINAL")
    merged, _, _ = await stored(app, db)
    assert (merged.unmerged, merged.rows) == (0, left.rows)


async def test_nothing_old_is_taken_where_no_day_is_asked_for(db: ClickHouse) -> None:
    app = App("asked")

    @app.stage
    async def grade(word: Word) -> Grade:
        raise AssertionError

    await Sink(db, Grade).write([item(1, 1)])
    found, _ = await stored(app, db)
    assert (found.rows, found.old_days) == (1, 0)


class Kept(Row, frozen=True, table="kept", keep="90d"):
    text: str


async def test_what_keep_lets_go_and_tables_are_laid_by_days(db: ClickHouse) -> None:
    app = App("keeping")

    @app.stage
    async def both(word: Word) -> Kept | Flat:
        raise AssertionError

    for kind in (Kept, Flat):
        await db.command(replace(schema_of(kind), by_days=False).create_storage())
    day = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=91)).date()
    newer = day + datetime.timedelta(days=2)
    await db.command(
        "INSERT INTO kept__storage (text, _id, _visible) "
        f"VALUES ('a', '1@{day}', 1), ('b', '2@{newer}', 1), ('c', '3', 1)"
    )
    kept, flat, _ = await stored(app, db)
    assert (kept.keep, kept.old_rows, flat.keep) == (90 * 86_400, 0, None)
    said: list[str] = []
    await lay_all_by_days(app, db, said.append)
    assert said[-1] == "flat: lies by days"
    kept, flat, dead = await stored(app, db)
    assert (kept.by_days, kept.rows, kept.no_birth) == (True, 3, 1)
    assert (kept.old_days, kept.old_rows, kept.oldest) == (1, 1, day)
    assert flat.by_days
    assert not dead.exists
    said.clear()
    await lay_all_by_days(app, db, said.append)
    assert said == ["kept: lay by days before", "flat: lay by days before"]
    # One that cannot be is said, and holds up no other.
    await db.command("DROP TABLE kept")
    await db.command("CREATE TABLE kept (x UInt8) ENGINE = Memory")
    await db.command("DROP TABLE flat__storage SYNC")
    await db.command(replace(schema_of(Flat), by_days=False).create_storage())
    said.clear()
    with pytest.raises(ConflictError):
        await lay_all_by_days(app, db, said.append)
    assert said[0].startswith("kept: kept exists in ClickHouse and is not mqinfer's")
    assert said[-1] == "flat: lies by days"
