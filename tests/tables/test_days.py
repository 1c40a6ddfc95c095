"""Tables by the day of a lineage's birth: exact whatever comes when, and read without a merge."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.message import Row
from mqinfer.ports import Origin
from mqinfer.tables.foresee import foresee
from mqinfer.tables.migrate import ensure_table
from mqinfer.tables.sink import Sink
from mqinfer.tables.tables import (
    INSERTED,
    ONE_DAY_AT_A_TIME,
    TableSchema,
    generation_sql,
    schema_of,
)
from mqinfer.tables.tables import version_sql as moved_to

DAY = 86_400_000
FIRST = 20_600 * DAY  # 2026-05-27


class Grade(Row, frozen=True, table="grade", order_by="position"):
    position: str
    grade: int


def item(number: int, day: int | None, grade: int = 0, published: int = 0, **more: Any) -> Any:
    """A row of an input whose id tells the day of its birth; None: it tells none."""
    born = FIRST + (day or 0) * DAY
    root = f"input-{number}" if day is None else f"input-{number}@{iso(born)}"
    published = published or born * 1_000_000
    origin = Origin(id=f"id-{number}", ancestors=(root, "leaf"), published=published, **more)
    return Grade(f"p{number % 7}", grade or number), origin


def iso(milliseconds: int) -> str:
    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC).date().isoformat()


async def made_before(db: ClickHouse) -> TableSchema:
    """The table as an earlier version made it."""
    old = replace(schema_of(Grade), by_days=False)
    await db.command(
        "CREATE TABLE grade__storage (position String, grade Int64, _id String, "
        "_ancestors Array(String), _stage LowCardinality(String), _run LowCardinality(String), "
        "_models Map(LowCardinality(String), String), _sequence UInt64, "
        "_published DateTime64(9, 'UTC'), _inserted DateTime64(3, 'UTC') DEFAULT now64(3), "
        "_visible UInt8, _version UInt64) ENGINE = ReplacingMergeTree(_version) "
        "ORDER BY (position, _id) SETTINGS non_replicated_deduplication_window = 1000"
    )
    return old


async def view_of(db: ClickHouse) -> str:
    (view,) = await db.query(
        "SELECT as_select FROM system.tables WHERE database = currentDatabase() AND name = 'grade'"
    )
    return str(view["as_select"])


async def shown(db: ClickHouse) -> dict[str, int]:
    rows = await db.query("SELECT _id, grade FROM grade")
    assert len({row["_id"] for row in rows}) == len(rows)
    return {row["_id"]: row["grade"] for row in rows}


async def explained(db: ClickHouse, what: str, query: str) -> str:
    rows = await db.query(f"EXPLAIN {what} {query}")
    return "\n".join(str(row["explain"]) for row in rows)


async def read(db: ClickHouse, query: str) -> tuple[int, int]:
    """Rows and parts that a query reads."""
    rows = await db.query(f"EXPLAIN ESTIMATE {query}")
    return sum(row["rows"] for row in rows), sum(row["parts"] for row in rows)


# --- what is read -------------------------------------------------------------------------------


async def test_merged_days_are_read_as_they_lie_and_one_day_reads_one_day(db: ClickHouse) -> None:
    sink = Sink(db, Grade)
    await sink.prepare()
    await db.command("SYSTEM STOP MERGES grade__storage")
    days, rows = 6, 400
    for part in range(4):
        await sink.write(
            [
                item(number, number % days)
                for number in range(part * rows * days // 4, (part + 1) * rows * days // 4)
            ]
        )
    assert len(await shown(db)) == days * rows
    whole = "SELECT avg(grade) FROM grade"
    assert "ReplacingSorted" in await explained(db, "PIPELINE", whole)
    await db.command("SYSTEM START MERGES grade__storage")
    await db.command("OPTIMIZE TABLE grade__storage FINAL")
    # FINAL merges nothing any more: the view does the work of its storage.
    assert "Replacing" not in await explained(db, "PIPELINE", whole)
    stored = "SELECT avg(grade) FROM grade__storage WHERE _visible = 1"
    assert await read(db, whole) == await read(db, stored) == (days * rows, days)
    for where in (
        "toDate(_born) = '2026-05-29'",
        "_born >= '2026-05-29' AND _born < '2026-05-30'",
        f"_born BETWEEN fromUnixTimestamp64Milli({FIRST + 2 * DAY}) "
        f"AND fromUnixTimestamp64Milli({FIRST + 3 * DAY - 1})",
    ):
        assert await read(db, f"{whole} WHERE {where}") == (rows, 1)
        (found,) = await db.query(f"SELECT count() AS n FROM grade WHERE {where}")
        assert found == {"n": rows}
    # A late repeat makes its own day to be merged at reading, and no other.
    await sink.write([item(2, 2, grade=-1, published=FIRST * 2_000_000)])
    assert (await shown(db))["id-2"] == 2
    assert await read(db, f"{whole} WHERE toDate(_born) = '2026-05-30'") == (rows, 1)


async def test_a_user_who_may_only_read_reads_the_view(db: ClickHouse) -> None:
    await Sink(db, Grade).write([item(1, 1)])
    (found,) = await db.query("SELECT count() AS n FROM grade SETTINGS readonly = 1")
    assert found == {"n": 1}


async def test_a_block_of_many_days_is_stored_at_once(db: ClickHouse) -> None:
    sink = Sink(db, Grade)
    assert await sink.write([item(n, n % 130 if n % 3 else None) for n in range(600)]) == {}
    assert await shown(db) == {f"id-{n}": n for n in range(600)}
    assert sink.metrics.blocks == 1


# --- exactness ----------------------------------------------------------------------------------

_NUMBER = st.integers(0, 5)
_WRITE = st.tuples(st.just("write"), _NUMBER, st.integers(1, 9), st.integers(1, 10**6))
_STEPS = st.one_of(
    _WRITE,
    st.tuples(st.just("merge")),
    st.tuples(st.just("show"), _NUMBER, st.booleans()),
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_STEPS, max_size=8))
async def test_the_view_shows_each_answer_once_whatever_comes_when(
    db: ClickHouse, steps: list[Any]
) -> None:
    """Repeats in any order, merges, and promotions between them: what the model says is shown."""
    await db.command("DROP TABLE IF EXISTS grade__storage SYNC")
    sink = Sink(db, Grade)
    await sink.prepare()
    kept: dict[int, tuple[int, int, int, bool]] = {}  # generation, earliest, grade, shown
    for step in steps:
        match step:
            case ("write", number, grade, hours):
                # Half of them have no birth: those may be published again on any day.
                published = FIRST * 1_000_000 + hours * 3_600_000_000_000
                day = number if number % 2 else None
                await sink.write([item(number, day, grade, published)])
                now = kept.get(number)
                if now is None or (now[0] == 0 and published <= now[1]):
                    kept[number] = (0, published, grade, True)
            case ("merge",):
                await db.command("OPTIMIZE TABLE grade__storage FINAL")
            case ("show", number, wanted):
                await db.command(
                    "INSERT INTO grade__storage SELECT * REPLACE ("
                    f"{int(wanted)} AS _visible, {moved_to(f'{generation_sql()} + 1')} AS _version)"
                    f" FROM (SELECT * FROM grade__storage FINAL WHERE _id = 'id-{number}') "
                    "SETTINGS insert_deduplicate = 0"
                )
                if number in kept:
                    generation, published, grade, _ = kept[number]
                    kept[number] = (generation + 1, published, grade, wanted)
        assert await shown(db) == {f"id-{n}": one[2] for n, one in kept.items() if one[3]}


# --- tables of the scheme before ----------------------------------------------------------------


async def partitions(db: ClickHouse, table: str = "grade__storage") -> dict[str, int]:
    """Rows of each partition."""
    rows = await db.query(
        "SELECT partition, sum(rows) AS n FROM system.parts WHERE table = {table:String} "
        "AND active AND database = currentDatabase() GROUP BY partition ORDER BY partition",
        {"table": table},
    )
    return {str(row["partition"]): int(row["n"]) for row in rows}


async def test_a_table_that_was_made_without_days_goes_on_as_it_was(db: ClickHouse) -> None:
    old = await made_before(db)
    assert await ensure_table(db, Grade) == old
    sink = Sink(db, Grade)
    assert await sink.write([item(n, n % 200) for n in range(300)]) == {}
    assert await sink.write([item(n, n % 200, -1, published=2**61) for n in range(300)]) == {}
    assert await shown(db) == {f"id-{n}": n for n in range(300)}
    assert sink.schema == old
    assert ONE_DAY_AT_A_TIME not in await view_of(db)
    foreseen = await foresee(db, Grade)
    assert foreseen.conflicts == []
    assert [note for note in foreseen.notes if "mqinfer tables APP --migrate" in note]
    # Rows of before have their birth all the same.
    (found,) = await db.query("SELECT count() AS n FROM grade WHERE toDate(_born) = '2026-05-28'")
    assert found == {"n": 2}
    # Dropped, it is made anew by days, and what was on its way is stored there.
    await db.command("DROP TABLE grade__storage SYNC")
    assert await sink.write([item(1, 1)]) == {}
    assert await partitions(db) == {"2026-05-28": 1}
    assert ONE_DAY_AT_A_TIME in await view_of(db)


async def test_it_is_said_once_how_to_lay_a_table_by_days(
    db: ClickHouse,
) -> None:
    await made_before(db)
    sink = Sink(db, Grade)
    with structlog.testing.capture_logs() as logs:
        await sink.prepare()
        sink.forget()
        await sink.prepare()
    (told,) = [log["reason"] for log in logs if "reason" in log]
    assert "mqinfer tables APP --migrate" in told


async def test_a_worker_of_the_version_before_writes_into_days(db: ClickHouse) -> None:
    """It names no birth, as no worker does: the table says it, for every copy the same."""
    sink = Sink(db, Grade)
    await sink.write([item(1, 1), item(2, None)])
    await sink.write([item(1, 1, published=2**61), item(2, None, published=2**61), item(3, 2)])
    assert await shown(db) == {"id-1": 1, "id-2": 2, "id-3": 3}
    assert set(await partitions(db)) == {"1970-01-01", "2026-05-28", "2026-05-29"}
    columns = [name for name, _ in INSERTED]
    assert "_born" not in columns
