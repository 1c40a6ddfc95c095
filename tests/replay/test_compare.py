"""Answers of a run beside those of live work, or of another run, on a real ClickHouse."""

from __future__ import annotations

import pytest

from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.replay.compare import compare
from mqinfer.replay.promote import Promotions
from mqinfer.replay.runs import Wanted
from mqinfer.settings import Settings
from tests.support.graded import Grader, graded
from tests.support.replay import runs_of, work


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
