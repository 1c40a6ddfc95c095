"""The daily analysis on a real nats-server and ClickHouse, and the view that it asks."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Sequence
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from mqinfer import Row, Settings, Snooze, Tick
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.ports import Origin
from mqinfer.replay.promote import Promotions
from mqinfer.replay.ranges import Wanted
from mqinfer.stack.ports import free_port
from mqinfer.tables.sink import Sink
from mqinfer.testing import Harness
from stages.plants import DISEASES, DiseaseGrade, Position, app, cache
from stages.plants.daily import ZONE, analyse, day_before
from stages.plants.effects import effects
from stages.plants.queries import LIVE, effects_of, means_of
from tests.support.replay import runs_of, work

FIRST, LAST = datetime.date(2026, 5, 4), datetime.date(2026, 5, 6)
BERLIN = ZoneInfo(ZONE)


@pytest.fixture
async def harness(
    nats: Settings, url: str, db: ClickHouse, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Harness]:
    for kind in (Position, DiseaseGrade):
        await Sink(db, kind).prepare()
    monkeypatch.setenv("MQINFER_CLICKHOUSE_URL", url)
    settings = Settings.load(nats_url=nats.nats_url, blobs=nats.blobs, clickhouse_url=url)
    async with Harness(app, settings) as harness:
        yield harness


async def store(db: ClickHouse, kind: type[Row], rows: Sequence[Row], what: str) -> None:
    items = [
        (row, Origin(id=f"{what}-{n}", published=n, sequence=n + 1)) for n, row in enumerate(rows)
    ]
    assert await Sink(db, kind).write(items) == {}


def grades(date: datetime.date, by_position: dict[str, int]) -> list[Row]:
    return [
        DiseaseGrade(
            position, date, 0, disease, grade, "leaf_detector", "1", f"grade_{disease}", "1"
        )
        for position, grade in by_position.items()
        for disease in DISEASES
    ]


async def field(db: ClickHouse) -> None:
    """Four positions: on each day those with the medicine get better by a grade."""
    areas: Any = {"a": "active", "b": "active", "x": "control", "y": "control"}
    await store(db, Position, [Position(name, area) for name, area in areas.items()], "plan")
    for n in range(3):
        date = FIRST + datetime.timedelta(days=n)
        rows = grades(date, {"a": 3 - n, "b": 3 - n, "x": 2, "y": 3})
        await store(db, DiseaseGrade, rows, str(date))


def morning(day: datetime.date) -> datetime.datetime:
    """Six o'clock of the next day."""
    after = day + datetime.timedelta(days=1)
    return datetime.datetime.combine(after, datetime.time(6), BERLIN)


async def said(db: ClickHouse) -> dict[tuple[datetime.date, str], float]:
    rows = await db.query("SELECT date, disease, effect FROM daily_effect")
    found = {(row["date"], row["disease"]): row["effect"] for row in rows}
    assert len(found) == len(rows)
    return found


async def test_every_morning_says_what_the_days_before_it_say(
    harness: Harness, db: ClickHouse
) -> None:
    await field(db)
    for day in (FIRST + datetime.timedelta(days=1), LAST):
        await harness.tick("analyse", morning(day))
    await harness.drain("analyse", "sink-daily_effect")
    first = await said(db)
    names = (*DISEASES, "all")
    assert first == {
        **{(FIRST + datetime.timedelta(days=1), name): -1.0 for name in names},
        **{(LAST, name): -2.0 for name in names},
    }
    assert await harness.dead() == []

    # Late grades: what was said stays, and the next morning knows of them.
    late = FIRST + datetime.timedelta(days=3)
    await store(db, DiseaseGrade, grades(late, {"a": 3, "b": 3, "x": 2, "y": 3}), "late")
    await harness.tick("analyse", morning(LAST))  # it has struck
    await harness.tick("analyse", morning(late))
    await harness.drain("analyse", "sink-daily_effect")
    assert await said(db) == {**first, **{(late, name): 0.0 for name in names}}


async def test_mornings_can_be_asked_again_in_a_run(harness: Harness, db: ClickHouse) -> None:
    await field(db)
    await harness.tick("analyse", morning(LAST))
    await harness.drain("analyse", "sink-daily_effect")
    # A better model's grades are promoted, say: of the last day, for a leaf that had none.
    await store(db, DiseaseGrade, grades(LAST, {"x": 0, "y": 1}), "better")
    await runs_of(harness).create(stage="analyse", wanted=Wanted(), name="better")
    await work(harness, "better")
    assert set((await said(db)).values()) == {-2.0}
    rows = await db.query("SELECT effect FROM daily_effect__storage FINAL WHERE _run = 'better'")
    assert [row["effect"] for row in rows] == [-1.0] * 6  # control lost a grade as well
    await Promotions(app, runs_of(harness), db).promote("better")
    assert set((await said(db)).values()) == {-1.0}


async def test_the_view_says_what_the_tables_say_and_follows_its_definition(
    harness: Harness, db: ClickHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    await field(db)

    def ask() -> None:
        with cache.database() as client:
            cache.refresh(client)
            for question in (means_of, effects_of):
                live = client.query(question(LIVE)).result_rows
                assert client.query(question(cache.VIEW)).result_rows == live
                assert live
            cache.ensure(client)  # it is there
            monkeypatch.setattr(cache, "_MARK", "another version")
            cache.refresh(client)
            assert client.query(means_of(cache.VIEW)).result_rows
            comment = f"SELECT comment FROM system.tables WHERE name = '{cache.VIEW}'"
            assert ("another version",) in client.query(comment).result_rows

    await asyncio.to_thread(ask)


async def test_nothing_to_compare_is_nothing_said(harness: Harness, db: ClickHouse) -> None:
    await harness.tick("analyse", morning(LAST))
    await harness.drain("analyse", "sink-daily_effect")
    assert await said(db) == {}
    assert await harness.dead() == []


async def test_an_outage_of_clickhouse_spends_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQINFER_CLICKHOUSE_URL", f"http://default@127.0.0.1:{free_port()}/default")
    with pytest.raises(Snooze, match="ClickHouse does not answer"):
        await analyse(Tick(morning(LAST)))


def test_yesterday_is_that_of_the_field() -> None:
    for month, utc_hour in ((1, 5), (7, 4)):  # 06:00 in Berlin, in winter and in summer
        at = datetime.datetime(2026, month, 2, utc_hour, tzinfo=datetime.UTC)
        assert day_before(Tick(at)) == datetime.date(2026, month, 1)
    assert app.stages["analyse"].clock is not None
    assert app.stages["analyse"].handler is analyse


def test_an_effect_of_too_few_positions_has_no_margin() -> None:
    row = {
        "disease": "rust", "control": 1, "active": 1, "control_change": 0.0, "active_change": -1.0,
        "control_variance": float("nan"), "active_variance": float("nan"),
    }  # fmt: skip
    (one,) = effects([row])
    assert (one.effect, one.known_margin) == (-1.0, None)
