"""Promoting, undoing and discarding runs, on a real ClickHouse."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from mqinfer import App
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.adapters.scan import Scanner
from mqinfer.errors import ConfigurationError, ConflictError
from mqinfer.operate.letters import DeadLetters, Selection
from mqinfer.replay.promote import Promotions, late
from mqinfer.replay.runs import Wanted
from mqinfer.rowpacks import layout
from mqinfer.settings import Settings
from mqinfer.tables.tables import version_sql
from mqinfer.testing import Harness, until
from tests.support.graded import Graded, Grader, graded, grading
from tests.support.replay import Number, runs_of, work


async def view(db: ClickHouse) -> list[tuple[int, str, float, str]]:
    rows = await db.query("SELECT value, grade, score, _run FROM graded ORDER BY ALL")
    return [(row["value"], row["grade"], row["score"], row["_run"]) for row in rows]


def expected(run: str, low: int, high: int) -> list[tuple[int, str, float, str]]:
    """What is shown when a run of version 2 over `low` to `high` is promoted."""
    one, two = Grader(1), Grader(2)
    covered = {value for value in range(low, high + 1) if value != 11}
    return sorted(
        (row.value, row.grade, row.score, run if value in covered else "")
        for value in range(20)
        for row in (two if value in covered else one).rows(value)
    )


async def test_promote_undo_discard(nats: Settings, url: str, db: ClickHouse) -> None:
    async with graded("promote", nats, url) as (harness, grader):
        before = await view(db)
        assert len(before) == 20
        grader.version = 2
        runs = runs_of(harness)
        promotions = Promotions(harness.app, runs, db)
        run = await runs.create(stage="grade", wanted=Wanted(from_seq=3, to_seq=15), name="r1")
        with pytest.raises(ConfigurationError, match="only one that is done"):
            await promotions.promote("r1")
        await work(harness, "r1")
        assert await view(db) == before  # nothing live is touched
        run = await runs.get("r1")
        assert await promotions.covered(run) == 12  # without the dead letter
        await harness.drain("sink-mqinfer_dead_letters")
        (dead,) = await db.query("SELECT run, stage FROM mqinfer_dead_letters")
        assert dead == {"run": "r1", "stage": "grade"}

        after = expected("r1", 2, 14)
        for _ in range(2):
            assert (await promotions.promote("r1")).state == "promoted"
            assert await view(db) == after
        # Rows that come again, late, change nothing.
        await db.command(
            "INSERT INTO graded__storage SELECT * REPLACE (_run = '' AS _visible, "
            f"{version_sql('0')} AS _version) FROM (SELECT * FROM graded__storage FINAL)"
        )
        assert await view(db) == after
        with pytest.raises(ConfigurationError, match="undo that first"):
            await promotions.discard("r1")
        assert (await promotions.rows(run))["graded"]["live_hidden"] == 12

        for _ in range(2):
            assert (await promotions.undo("r1")).state == "done"
            assert await view(db) == before
        await promotions.promote("r1")
        assert await view(db) == after

        # A later promotion wins where both cover; undone, the earlier one is back.
        await runs.create(stage="grade", wanted=Wanted(from_seq=10, to_seq=20), name="r2")
        grader.version = 1
        await work(harness, "r2")
        await promotions.promote("r2")
        both = [row for row in after if row[0] < 9] + [
            (*row[:3], "r2") for row in before if row[0] >= 9
        ]
        assert await view(db) == both
        await promotions.undo("r2")
        assert await view(db) == after
        await promotions.undo("r1")
        assert await view(db) == before

        # A promoted run of a stage that the app has lost stands in nobody's way.
        await promotions.promote("r1")
        await promotions.promote("r2")
        await runs.change("r2", lambda run: replace(run, stage="gone"))
        await promotions.undo("r1")
        assert await view(db) == [row for row in before if row[0] < 9] + both[-11:]
        await runs.change("r2", lambda run: replace(run, stage="grade"))
        await promotions.undo("r2")
        assert await view(db) == before

        for _ in range(2):
            assert (await promotions.discard("r1")).state == "discarded"
        assert await view(db) == before
        (left,) = await db.query("SELECT count() AS n FROM graded__storage WHERE _run = 'r1'")
        assert left["n"] == 0
        assert await harness.stored(subject="promote.run.r1.>") == []
        kept = await harness.stored(subject="promote.run.r2.>")
        assert sum(layout.count(pack.data) for pack in kept) == 22
        with pytest.raises(ConflictError):
            await runs.create(stage="grade", wanted=Wanted(), name="r1")
        with pytest.raises(ConfigurationError, match="is discarded"):
            await promotions.promote("r1")


async def test_a_promotion_that_was_killed_is_finished_by_the_next(
    nats: Settings, url: str, db: ClickHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with graded("half", nats, url) as (harness, grader):
        before = await view(db)
        grader.version = 2
        runs = runs_of(harness)
        promotions = Promotions(harness.app, runs, db)
        await runs.create(stage="grade", wanted=Wanted(), name="r1")
        await work(harness, "r1")
        command = db.command

        async def dies(sql: str, parameters: Any = None) -> None:
            if sql.startswith("INSERT"):
                half = sql.replace("_visible != mq_shown", "_visible != mq_shown AND value < 9")
                await command(half, parameters)
                raise RuntimeError("killed")
            await command(sql, parameters)

        for step, result in [("promote", expected("r1", 0, 19)), ("undo", before)]:
            with monkeypatch.context() as patch:
                patch.setattr(db, "command", dies)
                with pytest.raises(RuntimeError):
                    await getattr(promotions, step)("r1")
                assert not (await runs.get("r1")).applied
            assert await view(db) != result
            assert (await getattr(promotions, step)("r1")).applied
            assert await view(db) == result


async def test_live_rows_that_come_after_the_promotion(
    nats: Settings, url: str, db: ClickHouse
) -> None:
    settings = Settings.load({}, nats_url=nats.nats_url, blobs=nats.blobs, clickhouse_url=url)
    app, grader = grading("late")
    async with Harness(app, settings) as harness:
        broker = harness.services.broker
        await harness.publish(*(Number(value) for value in range(6)))
        await harness.drain("sink-graded")  # the live stage comes last
        runs = runs_of(harness)
        grader.version = 2
        run = await runs.create(stage="grade", wanted=Wanted(), name="r1")
        await work(harness, "r1")
        promotions = Promotions(app, runs, db)
        await promotions.promote("r1")
        shown = await view(db)
        assert {row[3] for row in shown} == {"r1"}
        assert "promote the run again" in str(await late(app, run, broker))
        grader.version = 1
        await harness.drain()
        assert len(await view(db)) == len(shown) + 6
        assert await late(app, run, broker) is None
        await promotions.promote("r1")
        assert await view(db) == shown


async def test_discarding_a_run_that_is_worked_on(nats: Settings, url: str, db: ClickHouse) -> None:
    settings = Settings.load({}, nats_url=nats.nats_url, blobs=nats.blobs, clickhouse_url=url)
    app = App("busy")
    begun: list[int] = []

    @app.stage(max_in_flight=2)
    async def grade(number: Number) -> Graded:
        begun.append(number.value)
        await asyncio.sleep(0.01 if len(begun) < 25 else 2.0)  # never through before it is told
        return Graded(number.value, "", 0)

    async with Harness(app, settings) as harness:
        await harness.publish(*(Number(value) for value in range(300)))
        runs = runs_of(harness)
        await runs.create(stage="grade", wanted=Wanted(), name="r1")
        working = asyncio.create_task(work(harness, "r1"))
        await until(lambda: len(begun) > 20)
        promotions = Promotions(app, runs, db)
        assert (await promotions.discard("r1")).state == "discarded"
        await working  # it ends by itself
        assert len(begun) < 300
        await promotions.discard("r1")
        assert await harness.stored(subject="busy.run.>") == []
        for table in ("graded__storage", "mqinfer_run_inputs__storage"):
            (left,) = await db.query(f"SELECT count() AS n FROM {table}")
            assert left["n"] == 0
        await work(harness, "r1")  # there is nothing to do any more
        assert await harness.stored(subject="busy.run.>") == []
        assert await harness.lag("run-r1-grade") == -1


async def test_a_dead_letter_sent_back_is_covered(nats: Settings, url: str, db: ClickHouse) -> None:
    async with graded("mended", nats, url) as (harness, grader):
        runs, broker = runs_of(harness), harness.services.broker
        promotions = Promotions(harness.app, runs, db)
        scanner = Scanner(broker.client)  # type: ignore[attr-defined]
        letters = DeadLetters(harness.app, scanner, broker, runs)
        before = await view(db)
        grader.version = 2
        run = await runs.create(stage="grade", wanted=Wanted(), name="r1")
        await work(harness, "r1")
        await promotions.promote("r1")
        assert await view(db) == expected("r1", 0, 19)
        refused = await letters.retry(Selection())
        assert "is promoted" in refused.problems[0]
        await promotions.undo("r1")

        grader.fails = None
        assert (await letters.retry(Selection())).reopened == ["r1"]
        with pytest.raises(ConfigurationError, match="only one that is done"):
            await promotions.promote("r1")
        await work(harness, "r1")
        assert await view(db) == before
        assert await promotions.covered(run) == 20
        await promotions.promote("r1")
        eleven = [row for row in await view(db) if row[0] == 11]
        assert eleven == [(11, "ill", 22.0, "r1")]
        assert {row[3] for row in await view(db)} == {"r1"}
        await promotions.undo("r1")
        await promotions.discard("r1")
        assert await view(db) == before
        assert await harness.stored(subject="mended.run.>") == []
        assert await harness.lag("run-r1-mqinfer-retry") == -1
