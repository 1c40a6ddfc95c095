"""On a cluster of two shards: what is sent, and what comes back (see `tests.support.shards`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest

from mqinfer import App, Column, Confidence, Label, Row
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.errors import BadRows, ConfigurationError, ConflictError, TableError
from mqinfer.monitor.places import ensure_counts
from mqinfer.monitor.watched import watched
from mqinfer.operate.reset import Held, reset
from mqinfer.operate.tables import stored
from mqinfer.ports import Origin
from mqinfer.search.table import create_vector_index
from mqinfer.tables import migrate, sharded
from mqinfer.tables.expiry import drop
from mqinfer.tables.foresee import foresee
from mqinfer.tables.merging import merge
from mqinfer.tables.sink import Sink
from mqinfer.tables.tables import schema_of
from tests.replay import test_promote
from tests.support import shards
from tests.support.clickhouse import ask
from tests.support.replay import Number

# A whole life of a run, over shards: promoted, undone, discarded.
test_a_run_over_shards = test_promote.test_promote_undo_discard


class Leaf(Row, frozen=True, table="leaf", order_by="position"):
    position: str
    label: Annotated[str, Label()]
    sure: Annotated[float, Confidence()] = 0.0


class Later(Row, frozen=True, table="leaf", order_by="position"):
    position: str
    label: Annotated[str, Label()]
    sure: Annotated[float, Confidence()] = 0.0
    note: str = "ENGINE = MergeTree"


app = App("sharded")
grader = app.model("grader")


@app.stage(models=[grader])
async def grade(number: Number) -> Leaf:
    raise NotImplementedError


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[shards.Server]:
    folder = tmp_path_factory.mktemp("shards")
    found = shards.Server(folder / "data", log=folder / "clickhouse.log")
    asyncio.run(_started(found))
    yield found
    asyncio.run(found.stop())


async def _started(found: shards.Server) -> None:
    await found.start()
    await found.wait_ready()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a cluster is told."""
    made = ClickHouse.__init__

    def of_the_cluster(client: ClickHouse, url: str, **options: Any) -> None:
        made(client, url, **{**options, "cluster": shards.CLUSTER})

    monkeypatch.setattr(ClickHouse, "__init__", of_the_cluster)
    return shards.in_one_engine(monkeypatch)


@pytest.fixture
def url(server: shards.Server, said: list[str]) -> Iterator[str]:
    assert said == []
    base = server.url.rpartition("/")[0]
    ask(server.url, "CREATE DATABASE garden")
    yield f"{base}/garden"
    ask(server.url, "DROP DATABASE garden")


@pytest.fixture
async def db(url: str) -> AsyncIterator[ClickHouse]:
    client = ClickHouse(url, cluster=shards.CLUSTER)
    yield client
    await client.close()


async def test_a_table_over_shards(db: ClickHouse, said: list[str]) -> None:
    sink = Sink(db, Leaf, app="sharded")
    await sink.prepare()
    for published in (2, 1):  # the first answer stands, wherever it was written
        rows = [
            (
                Leaf(f"p{n % 3}", f"at {published}"),
                Origin(id=f"id-{n}", published=published * 10**9),
            )
            for n in range(40)
        ]
        assert await sink.write(rows) == {}
    found = "SELECT _shard_num AS shard, count() AS n, uniqExact(_id) AS ids FROM leaf__storage "
    for final, copies in (("", 2), ("FINAL ", 1)):
        by_shard = await db.query(f"{found}{final}GROUP BY shard ORDER BY shard")
        assert [row["shard"] for row in by_shard] == [1, 2]
        assert sum(row["ids"] for row in by_shard) == 40
        assert all(row["n"] == copies * row["ids"] for row in by_shard)
    shown = await db.query("SELECT label, count() AS n FROM leaf GROUP BY label")
    assert shown == [{"label": "at 1", "n": 40}]
    # What is refused is found by the constraints that a shard has.
    await db.command("ALTER TABLE `leaf__storage` ADD CONSTRAINT few CHECK label != 'none'")
    block = ["position", "label", "_id"], ["String"] * 3
    with pytest.raises(BadRows, match="few"):
        await db.insert("leaf__storage", *block, [["p"], ["none"], ["id"]], token="a")
    refused = await sink.write(
        [(Leaf("p", "none"), Origin(id="a")), (Leaf("p", "x"), Origin(id="b"))]
    )
    assert list(refused) == [0]
    # All that workers and people do to a table.
    await migrate.ensure_table(db, Later, "sharded")
    assert {row["note"] for row in await db.query("SELECT note FROM leaf")} == {Later("", "").note}
    (leaves,) = watched(app)[0]
    await ensure_counts(db, leaves, "sharded")
    await db.query("SELECT count() AS n FROM leaf__counts")
    (day, *_) = await db.query("SELECT DISTINCT _partition_id AS id FROM leaf__storage")
    await merge(db, "leaf__storage", day["id"])
    assert (await stored(app, db))[0].exists
    await drop(db, "leaf__storage", day["id"])
    assert await db.query("SELECT * FROM leaf") == []
    await reset(app, Held({}, {}), _NoStreams(), db)
    assert await migrate.look(db, schema_of(Leaf)) == (None, None)
    for sql in said:
        (read,) = await db.query("SELECT formatQuerySingleLine({sql:String}) AS sql", {"sql": sql})
        everywhere = not sql.startswith(("INSERT", "DELETE FROM `mqinfer_"))
        assert (" ON CLUSTER plants" in read["sql"]) == everywhere, sql


class _NoStreams:
    async def stream_info(self, stream: str) -> None:
        raise NotImplementedError

    async def stream_names(self) -> list[str]:
        return []

    async def delete_stream(self, stream: str) -> None:
        raise NotImplementedError


async def test_rows_stay_on_the_shards_where_they_were_laid(
    db: ClickHouse, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate.ensure_table(db, Leaf, "sharded")
    # Another server that makes it, when the cluster has grown, lays it as it lies.
    grown = sharded.Shards("plants", "garden", 3)
    async with db._call(5) as client:
        as_it_lies = await db._laid(client, schema_of(Leaf).create_storage(), grown)
    assert as_it_lies.slots == 2
    _, storage = await migrate.look(db, schema_of(Leaf))
    assert storage is not None
    assert (storage["laid"], storage["slots"]) == (2, 2)
    assert migrate.grown(schema_of(Leaf), storage) is None
    assert "2 of the 3 shards" in str(migrate.grown(schema_of(Leaf), {**storage, "slots": 3}))
    with pytest.raises(ConflictError, match="rows of the others are missing"):
        migrate.check_storage(schema_of(Leaf), {**storage, "slots": 1}, "plants")
    with pytest.raises(ConflictError, match="name it in MQINFER_CLICKHOUSE_CLUSTER"):
        migrate.check_storage(schema_of(Leaf), storage, None)
    # One that a server, or a cluster of one shard, had before.
    ask(url, "CREATE TABLE old__storage (_id String) ENGINE = ReplacingMergeTree ORDER BY _id")

    class Old(Row, frozen=True, table="old"):
        position: str

    assert "on one shard alone" in (await foresee(db, Old, "sharded")).conflicts[0]
    # Shards that have one name between them would be replicas of one another.
    monkeypatch.undo()
    with pytest.raises(ConfigurationError, match="share a value of the macro shard"):
        async with db._call(5) as client:
            await db._laid(client, schema_of(Leaf).create_storage(), grown)


def test_a_token_goes_along_to_each_shard(url: str) -> None:
    # Both shards are one table here: what the first one keeps under a token, the other one passes.
    made = "CREATE TABLE of (_id String, n UInt8) ENGINE = MergeTree ORDER BY _id "
    ask(url, f"{made} SETTINGS non_replicated_deduplication_window = 10")
    engine = f"Distributed({shards.CLUSTER}, garden, of, cityHash64(_id) % 2)"
    ask(url, f"CREATE TABLE over AS of ENGINE = {engine}")
    rows = "SELECT toString(number) AS _id, {} AS n FROM numbers(10)"
    (first,) = ask(url, f"SELECT countIf(cityHash64(_id) % 2 = 0) AS n FROM ({rows.format(1)})")
    settings = "SETTINGS distributed_foreground_insert = 1, insert_deduplication_token = 'a'"
    for n in (1, 2):
        ask(url, f"INSERT INTO over {settings} {rows.format(n)}")
        (kept,) = ask(url, "SELECT count() AS rows, max(n) AS last FROM of")
        assert kept["last"] == 1
        assert kept["rows"] in (first["n"], 10 - first["n"])


class Near(Row, frozen=True, table="near", order_by="name"):
    name: str
    vector: Annotated[list[float], Column("Array(Float32)")]


async def test_an_index_of_vectors_over_shards(db: ClickHouse) -> None:
    sink = Sink(db, Near, app="sharded")
    await sink.prepare()
    rows = [
        (Near(f"p{n}", [1.0, n, 0.0]), Origin(id=f"id-{n}", published=n + 1)) for n in range(40)
    ]
    assert await sink.write(rows) == {}
    with pytest.raises(TableError, match=r"Near\.vector cannot be indexed: .* 3 elements"):
        await create_vector_index(db, Near, 2)
    indexes = "SELECT name FROM system.data_skipping_indices WHERE table = 'near__shard'"
    assert await db.query(indexes) == []
    await create_vector_index(db, Near, 3)
    assert await db.query(indexes) == [{"name": "vector_nearest"}]
