"""Promoting, undoing, discarding and comparing runs, on a real ClickHouse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace

from mqinfer import App, Blob, Context, Message, Row, plan
from mqinfer.adapters import admin
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.adapters.scan import Scanner
from mqinfer.errors import ConfigurationError, ConflictError
from mqinfer.operate.letters import DeadLetters, Selection
from mqinfer.replay.compare import compare
from mqinfer.replay.examples import attach, figures
from mqinfer.replay.promote import Promotions, late
from mqinfer.replay.runs import Wanted
from mqinfer.replay.superseded import superseded
from mqinfer.rowpacks import layout
from mqinfer.settings import Settings
from mqinfer.tables.tables import version_sql
from mqinfer.testing import Harness, until
from tests.support.replay import Double, Number, runs_of, work


class Graded(Row, frozen=True, table="graded", order_by="value"):
    value: int
    grade: str
    score: float


@dataclass
class Grader:
    """What the stage of `grading` answers; tests change it between live and run."""

    version: int = 1
    fails: int | None = 11  # version 2 cannot answer this

    def rows(self, value: int) -> list[Graded]:
        if self.version == 1:
            return [Graded(value, "ill" if value % 2 else "well", 1.0 * value)]
        if value % 5 == 0:
            return []  # the new model says nothing of these
        rows = [Graded(value, "ill" if value % 3 else "well", 2.0 * value)]
        return rows * 2 if value == 7 else rows  # and more of this one


def grading(name: str) -> tuple[App, Grader]:
    app, grader = App(name), Grader()

    @app.stage(attempts=1)
    async def grade(number: Number, ctx: Context) -> AsyncIterator[Graded]:
        ctx.models["grader"] = str(grader.version)  # as a call of that model would say
        if grader.version == 2 and number.value == grader.fails:
            raise ValueError("it cannot")
        for row in grader.rows(number.value):
            yield row

    return app, grader


@asynccontextmanager
async def graded(name: str, nats: Settings, url: str) -> AsyncIterator[tuple[Harness, Grader]]:
    """Twenty numbers with their live rows."""
    settings = Settings.load({}, nats_url=nats.nats_url, blobs=nats.blobs, clickhouse_url=url)
    app, grader = grading(name)
    async with Harness(app, settings) as harness:
        await harness.publish(
            *(Number(value) for value in range(20)), ids=[f"{name}-{i}" for i in range(20)]
        )
        await harness.drain()
        yield harness, grader


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


async def test_compare(nats: Settings, url: str, db: ClickHouse) -> None:
    async with graded("compare", nats, url) as (harness, grader):
        grader.version = 2
        runs = runs_of(harness)
        run = await runs.create(stage="grade", wanted=Wanted(), name="r1")
        await work(harness, "r1")
        for _ in range(2):  # the same whether or not it is promoted
            facts = await compare(harness.app, run, None, db, examples=3)
            assert (facts["run"], facts["with"]) == ("r1", "live")
            (table,) = facts["tables"]
            old = {value: Grader(1).rows(value)[0] for value in range(20)}
            new = {v: rows[0] for v in range(20) if v != 11 and (rows := Grader(2).rows(v))}
            same = [v for v in new if new[v] == old[v]]
            assert (table["matched"], table["only_new"], table["only_old"]) == (15, 1, 4)
            assert (table["agree"], table["agreement"]) == (len(same), len(same) / 15)
            assert set(table["columns"]) == {"grade", "score"}
            grade = table["columns"]["grade"]
            assert {(c["old_value"], c["new_value"]): c["n"] for c in grade["changes"]} == {
                (a, b): n
                for a in ("ill", "well")
                for b in ("ill", "well")
                if (n := sum(old[v].grade == a and new[v].grade == b for v in new))
            }
            assert grade["agreement"] == sum(old[v].grade == new[v].grade for v in new) / 15
            score = table["columns"]["score"]["numbers"]
            assert score["shift"] == pytest.approx(sum(new) / 15)
            assert score["new_mean"] == pytest.approx(2 * score["old_mean"])
            assert score["most_change"] == 19
            assert len(table["examples"]) == 3
            example = table["examples"][0]
            assert example["old"]["grade"] != example["new"]["grade"]
            assert example["input"] == f"compare-{example['old']['value']}"
            await Promotions(harness.app, runs, db).promote("r1")
        # Beside another run, where both have answered.
        await runs.create(stage="grade", wanted=Wanted(to_seq=5), name="r2")
        await work(harness, "r2")
        two = await runs.get("r2")
        facts = await compare(harness.app, two, run, db)
        (table,) = facts["tables"]
        assert (table["matched"], table["agreement"]) == (4, 1.0)
        assert (table["only_new"], table["only_old"], table["examples"]) == (0, 0, [])


class Photo(Message, subject="photo"):
    name: str
    image: Blob


class Cut(Message, subject="cut"):
    name: str


class Judged(Row, frozen=True, table="judged", order_by="name"):
    name: str
    verdict: str


async def test_examples_of_following_stages_show_what_was_replayed(
    nats: Settings, url: str, db: ClickHouse
) -> None:
    settings = Settings.load({}, nats_url=nats.nats_url, blobs=nats.blobs, clickhouse_url=url)
    app = App("follow")
    failing = True

    @app.stage(attempts=1)
    async def cut(photo: Photo, ctx: Context) -> Cut:
        if failing and ctx.run and photo.name == "b":
            raise ValueError("it cannot")
        return Cut(photo.name)

    @app.stage
    async def judge(cut: Cut, ctx: Context) -> Judged:
        return Judged(cut.name, ctx.run or "live")

    async with Harness(app, settings) as harness:
        scanner = Scanner(harness.services.broker.client)  # type: ignore[attr-defined]
        await harness.publish(*(Photo(name, Blob.at(f"photos/{name}.png")) for name in "ab"))
        await harness.drain()
        runs = runs_of(harness)
        run = await runs.create(stage="cut", wanted=Wanted(), name="r1", downstream=True)
        await work(harness, "r1")
        # One that failed is answered under another sequence, and is found there.
        failing = False
        broker = harness.services.broker
        outcome = await DeadLetters(app, scanner, broker, runs).retry(Selection())
        assert outcome.done == 1
        await work(harness, "r1")
        facts = await compare(app, run, None, db)
        attached = await attach(app, run, facts, scanner)
        (table,) = facts["tables"]
        examples = {one["new"]["name"]: one for one in table["examples"]}
        for name, example in examples.items():
            path = f"photos/{name}.png"
            blob = {"of": "input", "field": "image", "path": path, "bytes": None}
            assert (example["problem"], example["blobs"]) == (None, [blob])
        assert examples["a"]["sequence"] == 1
        assert examples["b"]["sequence"] > 2
        # Nothing is in the store.
        (first, second) = (await figures(attached, harness.services.store)).values()
        assert [figure.url for figure in (*first, *second)] == [None, None]
        assert "photos/" in first[0].text

        # A stream that was made anew has other messages under the same sequences.
        client = broker.client  # type: ignore[attr-defined]
        await admin.ask(client, "STREAM.DELETE.follow", {}, "stream")
        await broker.ensure_stream(plan.stream_spec(app))
        await harness.publish(Photo("c", Blob.at("photos/c.png")))
        assert await scanner.message("follow", 1) is not None
        await attach(app, run, facts, scanner)
        assert {one["problem"] for one in table["examples"]} == {
            "the stream does not hold it any more"
        }


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


async def test_who_superseded_whom(nats: Settings, url: str, db: ClickHouse) -> None:
    async with graded("heirs", nats, url) as (harness, grader):
        app, runs = harness.app, runs_of(harness)
        promotions = Promotions(app, runs, db)
        live = {"run": "", "models": {"grader": "1"}}

        async def facts(name: str, rows: int = 0) -> Any:
            run = await runs.get(name)
            return (await superseded(app, run, await runs.all(), db, rows=rows)).get("graded")

        def counted(cells: list[dict[str, Any]]) -> dict[tuple[Any, Any], int]:
            return {
                tuple(side and side["run"] for side in (cell["old"], cell["new"])): cell["rows"]
                for cell in cells
            }

        grader.version = 2
        await runs.create(stage="grade", wanted=Wanted(to_seq=12), name="r1")  # 0 to 11
        await work(harness, "r1")
        assert await facts("r1") is None
        await promotions.promote("r1")
        # 0, 5 and 10 have no row now, 7 has two, and 11 is a dead letter.
        one = await facts("r1", 100)
        assert counted(one["supersedes"]) == {("", "r1"): 8, ("", None): 3, (None, "r1"): 1}
        assert one["superseded_by"] == []
        assert len(one["pairs"]) == 12
        told = {
            (pair["input"], pair["key"]["value"]): (pair["old"], pair["new"])
            for pair in one["pairs"]
            if pair["key"]["value"] != "7"
        }
        new = {"run": "r1", "models": {"grader": "2"}}
        assert told == {
            (f"heirs-{v}", str(v)): (live, None if v % 5 == 0 else new) for v in range(11) if v != 7
        }
        sevens = [(p["old"], p["new"]) for p in one["pairs"] if p["input"] == "heirs-7"]
        assert sevens == [(live, new), (None, new)]
        assert len((await facts("r1", 5))["pairs"]) == 5

        # The second takes over from the first where both cover, and from live elsewhere.
        grader.version = 1
        await runs.create(stage="grade", wanted=Wanted(from_seq=6, to_seq=15), name="r2")  # 5 to 14
        await work(harness, "r2")
        await promotions.promote("r2")
        two = await facts("r2")
        assert counted(two["supersedes"]) == {
            ("r1", "r2"): 4,  # 6, 7, 8 and 9
            ("r1", None): 1,  # the second row of 7
            ("", "r2"): 4,  # 11 to 14
            (None, "r2"): 2,  # 5 and 10, of which the first said nothing
        }
        one = await facts("r1")
        assert counted(one["supersedes"]) == {("", "r1"): 8, ("", None): 3, (None, "r1"): 1}
        assert counted(one["superseded_by"]) == {("r1", "r2"): 4, ("r1", None): 1}
        assert [cell["run"] for cell in one["superseded_by"]] == ["r2", "r2"]
        assert one["superseded_by"][0] == {
            "run": "r2",
            "old": {"run": "r1", "models": {"grader": "2"}},
            "new": {"run": "r2", "models": {"grader": "1"}},
            "rows": 4,
        }

        # Only the one right behind it counts; undone, nobody has taken over.
        await runs.create(stage="grade", wanted=Wanted(), name="r3")
        await work(harness, "r3")
        await promotions.promote("r3")
        assert counted((await facts("r1"))["superseded_by"]) == {
            ("r1", "r2"): 4, ("r1", None): 1, ("r1", "r3"): 4
        }  # fmt: skip
        assert counted((await facts("r2"))["superseded_by"]) == {("r2", "r3"): 10}
        await promotions.undo("r2")
        assert await facts("r2") is None
        assert counted((await facts("r1"))["superseded_by"]) == {("r1", "r3"): 8, ("r1", None): 1}
        await promotions.undo("r3")
        assert (await facts("r1"))["superseded_by"] == []


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


async def test_who_superseded_whom_with_following_stages(
    nats: Settings, url: str, db: ClickHouse
) -> None:
    settings = Settings.load({}, nats_url=nats.nats_url, blobs=nats.blobs, clickhouse_url=url)
    app, grader = App("following"), Grader()

    @app.stage
    async def split(number: Number) -> AsyncIterator[Double]:
        for index in range(2):
            yield Double(10 * number.value + index)

    @app.stage
    async def grade(one: Double) -> Graded | None:
        if grader.version == 2 and one.value % 10 == 0:
            return None
        return Graded(one.value, str(grader.version), 0)

    async with Harness(app, settings) as harness:
        await harness.publish(
            *(Number(value) for value in range(4)), ids=[f"following-{i}" for i in range(4)]
        )
        await harness.drain()
        grader.version = 2
        runs = runs_of(harness)
        await runs.create(stage="split", wanted=Wanted(), name="r1", downstream=True)
        await work(harness, "r1")
        await Promotions(app, runs, db).promote("r1")
        run = await runs.get("r1")
        facts = (await superseded(app, run, [run], db, rows=10))["graded"]
        live, new = {"run": "", "models": {}}, {"run": "r1", "models": {}}
        assert facts["supersedes"] == [
            {"old": live, "new": None, "rows": 4},
            {"old": live, "new": new, "rows": 4},
        ]
        told = {pair["key"]["value"]: (pair["input"], pair["new"]) for pair in facts["pairs"]}
        assert told == {
            str(10 * value + index): (f"following-{value}", new if index else None)
            for value in range(4)
            for index in range(2)
        }
