"""Merging: what rests becomes one part, whoever asks for it and is killed on the way."""

from __future__ import annotations

from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.tables.merging import Pace, merge, rested
from mqinfer.tables.sink import Sink
from tests.tables.test_days import Grade, explained, item, made_before, shown

STORAGE = "grade__storage"
AT_ONCE = Pace(every=0.01, rest=0.0, share=1e9)


async def own_merges(db: ClickHouse, word: str) -> None:
    """Stop or start the merges of the server: its own would come in between."""
    await db.command(f"SYSTEM {word} MERGES {STORAGE}")


async def written(db: ClickHouse, *days: int, parts: int = 3) -> Sink:
    """Days of several parts; merges are stopped."""
    sink = Sink(db, Grade)
    await sink.prepare()
    await own_merges(db, "STOP")
    for part in range(parts):
        await sink.write([item(10 * day + n, day, grade=part + 1) for day in days for n in (0, 1)])
    return sink


async def test_days_that_rest_are_merged_the_smallest_first_and_then_left_alone(
    db: ClickHouse,
) -> None:
    sink = await written(db, 1, 2)
    await sink.write([item(30 + n, 3) for n in range(500)])
    found = await rested(db, STORAGE, AT_ONCE)
    assert found == ["20260528", "20260529", "20260530"]  # one part, but none that was merged
    before = await shown(db)
    await own_merges(db, "START")
    for partition in found:
        await merge(db, STORAGE, partition)
    assert await rested(db, STORAGE, AT_ONCE) == []
    assert "Replacing" not in await explained(db, "PIPELINE", "SELECT avg(grade) FROM grade")
    assert await shown(db) == before
    # A late repeat: its day is merged again, and no other.
    await own_merges(db, "STOP")
    await sink.write([item(20, 2, grade=7, published=2**61)])
    assert await rested(db, STORAGE, AT_ONCE) == ["20260529"]


async def test_a_day_that_rows_still_come_into_or_that_is_too_large_is_left_alone(
    db: ClickHouse,
) -> None:
    await written(db, 1)
    assert await rested(db, STORAGE, Pace(rest=600.0)) == []
    # However small: by the time that its merge is taken to need.
    assert await rested(db, STORAGE, Pace(rest=0.0, bytes_a_second=1e-3)) == []
    assert await rested(db, STORAGE, Pace(rest=0.0, max_bytes=10)) == []
    assert await rested(db, STORAGE, AT_ONCE) == ["20260528"]


async def test_a_table_without_days_is_left_to_the_server(db: ClickHouse) -> None:
    await made_before(db)
    await written(db, 1, 2)
    assert await rested(db, STORAGE, AT_ONCE) == []
