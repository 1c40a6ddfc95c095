"""Which rows a promoted run took the place of, and who took the place of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from mqinfer import App
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.replay.promote import Promotions
from mqinfer.replay.runs import Wanted
from mqinfer.replay.superseded import superseded
from mqinfer.settings import Settings
from mqinfer.testing import Harness
from tests.support.graded import Graded, Grader, graded
from tests.support.replay import Double, Number, runs_of, work


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
