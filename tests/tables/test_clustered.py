"""On a cluster of replicas: every statement that is sent, by ClickHouse's own parser."""

from __future__ import annotations

import re
from typing import Annotated, Any

import pytest

from mqinfer import App, Confidence, Label, Row, Settings, wiring
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.errors import ConfigurationError, ConflictError
from mqinfer.monitor.kept import Kept
from mqinfer.monitor.places import ensure_counts
from mqinfer.monitor.truth import Truths
from mqinfer.monitor.watched import watched
from mqinfer.tables import migrate
from mqinfer.tables.clustered import on_cluster, unfit
from mqinfer.tables.expiry import drop
from mqinfer.tables.foresee import foresee
from mqinfer.tables.merging import merge
from mqinfer.tables.tables import schema_of
from tests.support.replay import Number

CLUSTER = "plants"
ODD = "it's ENGINE = MergeTree, or `ENGINE = MergeTree"


class Leaf(Row, frozen=True, table="leaf", order_by="position", shared=True):
    position: str
    label: Annotated[str, Label()]
    sure: Annotated[float, Confidence()] = 0.0


class Later(Row, frozen=True, table="leaf", order_by="position", shared=True):
    position: str
    label: Annotated[str, Label()]
    sure: Annotated[float, Confidence()] = 0.0
    note: str = ODD


app = App("clustered")
grader = app.model("grader")


@app.stage(models=[grader])
async def grade(number: Number) -> Leaf:
    raise NotImplementedError


(LEAVES,) = watched(app)[0]


class Written:
    """A database that writes down what a cluster would be told, as ClickHouse's parser reads it."""

    cluster = None

    def __init__(self, db: ClickHouse):
        self._db = db
        self.query = db.query
        self.told: list[str] = []

    async def command(self, sql: str, parameters: Any = None) -> None:
        told = on_cluster(sql, CLUSTER)
        (read,) = await self._db.query(
            "SELECT formatQuerySingleLine({sql:String}) AS sql", {"sql": told}
        )
        self.told.append(str(read["sql"]))
        await self._db.command(sql, parameters)


async def test_what_is_sent_is_what_a_cluster_takes(db: ClickHouse) -> None:
    written: Any = Written(db)
    await ensure_counts(written, LEAVES, "clustered")
    await Kept(written, "clustered").ensure()
    await Truths(written, "clustered").ensure()
    await migrate.ensure_table(written, Later, "another")
    await merge(written, schema_of(Leaf).storage, "20260501")
    await drop(written, schema_of(Leaf).storage, "20260501")
    told: list[str] = written.told
    made = {
        name: (cluster, kind, place, version)
        for sql in told
        for name, cluster, kind, place, version in re.findall(
            r"^CREATE TABLE IF NOT EXISTS `?(\w+)`? ON CLUSTER (\w+) \(.*\) "
            r"ENGINE = (\w+)\((.*?\}'), '\{replica\}'(?:, (\w+))?\) ",
            sql,
        )
    }
    place = "'/clickhouse/tables/{shard}/{database}/{table}'"
    replacing, plain = "ReplicatedReplacingMergeTree", "ReplicatedMergeTree"
    assert made == {
        "leaf__storage": (CLUSTER, replacing, place, "_version"),
        "mqinfer_truths": (CLUSTER, replacing, place, "at"),
        **{
            f"mqinfer_{name}": (CLUSTER, plain, place, "")
            for name in ("counts", "seals", "centroids", "references", "sayings", "episodes")
        },
    }
    views = [sql for sql in told if " VIEW " in sql]
    assert len(views) == 3
    assert all(f" ON CLUSTER {CLUSTER} " in sql for sql in views)
    # A replicated table hands on all changes by itself, but for its comment.
    changes = [sql for sql in told if not sql.startswith("CREATE")]
    assert {sql.split()[0] for sql in changes} == {"ALTER", "OPTIMIZE"}
    for sql in changes:
        assert ("MODIFY COMMENT" in sql) == (" ON CLUSTER " in sql)
        assert "Replicated" not in sql
    assert any("MODIFY COMMENT" in sql for sql in changes)
    assert await migrate.columns(db, schema_of(Leaf).storage)


def test_texts_and_names_are_left_alone() -> None:
    told = on_cluster(schema_of(Leaf).create_storage(ODD), CLUSTER)
    assert told.endswith("COMMENT 'it\\'s ENGINE = MergeTree, or `ENGINE = MergeTree'")
    assert told.count("Replicated") == 1
    for sql in (
        schema_of(Later).add_column("note"),
        "CREATE TEMPORARY TABLE a AS `b` ENGINE = Null",
        "INSERT INTO `a` SELECT 'CREATE TABLE IF NOT EXISTS a ENGINE = MergeTree'",
    ):
        assert on_cluster(sql, CLUSTER) == sql


async def test_a_table_of_one_server_is_told(db: ClickHouse) -> None:
    await migrate.ensure_table(db, Leaf, "clustered")
    db.cluster = CLUSTER
    assert db.cluster == CLUSTER
    found = await foresee(db, Leaf, "clustered")
    assert "is on one server alone" in found.conflicts[0]
    with pytest.raises(ConflictError, match="one server alone"):
        await migrate.ensure_table(db, Leaf, "clustered")


async def test_a_cluster_that_does_not_fit_is_told(url: str) -> None:
    settings = Settings.load(
        {"MQINFER_CLICKHOUSE_URL": url, "MQINFER_CLICKHOUSE_CLUSTER": "nowhere"}
    )
    client = wiring.clickhouse(settings)
    with pytest.raises(ConfigurationError, match="knows no cluster"):
        await client.ping()
    await client.close()
    macros = ["shard", "replica"]
    assert unfit(CLUSTER, 1, 1, macros) is None
    assert unfit(CLUSTER, 2, 1, macros) is None
    assert "no replica" in str(unfit(CLUSTER, 1, 0, macros))
    assert "no macro replica and shard" in str(unfit(CLUSTER, 1, 1, []))
    with pytest.raises(ConfigurationError, match="MQINFER_CLICKHOUSE_QUORUM"):
        Settings.load({"MQINFER_CLICKHOUSE_QUORUM": "0"})
