"""search: an index beside bare usearch and ClickHouse: queries a second, recall, memory, freshness.

Vectors as models give them: clustered, 1,280 numbers each. Recall@10 is against looking at all. The
bare library searches the same graph for the same queries, in as large batches as the shard does.
Through NATS there are clients side by side, and the shard is in this process as well. A million
vectors take 18 GB of memory, 20 GB on disk, and half an hour of two cores.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import usearch.index
from numpy.typing import NDArray

from benchmarks.results import Figure, Goal, Options, Result, Row
from mqinfer import App, Column, wiring
from mqinfer import Row as TableRow
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.index import Parameters
from mqinfer.ports import Origin
from mqinfer.search.keeping import Keeping
from mqinfer.search.shard import Shard
from mqinfer.search.table import create_vector_index, search_table
from mqinfer.settings import Settings
from mqinfer.stack import Stack, StackSettings
from mqinfer.tables.tables import INSERTED, frame_values, schema_of
from mqinfer.testing import Harness, until

SIZES = {"10k": 10_000, "100k": 100_000, "1m": 1_000_000}
SMALLEST = "10k"
DIMENSIONS = 1280
QUERIES = 200
K = 10
BATCH = 64  # queries that a shard answers together
CLIENTS = 64
FRESH = 100
LEAST = 1024  # queries of a rate
OF_TABLE = 20  # queries of ClickHouse, each of which looks at much of the table
OF_BARE, VISIBLE = 0.8, 1.0

Floats = NDArray[np.float32]


class Vector(TableRow, frozen=True, table="bench_vector", order_by="name", wire="msgpack"):
    name: str
    vector: Annotated[list[float], Column("Array(Float32)")]


app = App("search_bench")
index = app.index("vectors", of=Vector, key="name")


def clustered(count: int, seed: int) -> Floats:
    """Unit vectors around a thousand directions."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(1000, DIMENSIONS)).astype(np.float32)
    found = np.empty((count, DIMENSIONS), np.float32)
    for at in range(0, count, 10_000):
        part = found[at : at + 10_000]
        part[:] = centres[random.integers(0, 1000, len(part))]
        part += random.normal(scale=0.6, size=part.shape).astype(np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return found


async def measure(options: Options) -> Result:
    """Each size: bare, as a shard, in ClickHouse; the smallest through NATS as well.

    Sizes are chosen by `options.only`.
    """
    rows: list[Row] = []
    goals: list[Goal] = []
    stack_settings = StackSettings(
        dir=options.folder / "stack", nats_port=0, triton=False, clickhouse_port=0
    )
    async with Stack(stack_settings) as stack:
        settings = Settings.load(
            {},
            nats_url=stack.nats_url,
            clickhouse_url=stack.clickhouse_url,
            blobs=str(options.folder / "blobs"),
        )
        database = ClickHouse(settings.clickhouse_url, timeout=3600.0, change_timeout=3600.0)
        # No more of them at a larger scale: each is compared with every vector.
        queries = clustered(min(QUERIES, options.amount(QUERIES, least=20)), 2)
        try:
            for size in filter(options.wants, SIZES):
                vectors = clustered(options.amount(SIZES[size], least=500), 1)
                asked = _Asked(queries, vectors, options)
                some, goal = await _of_size(vectors, asked, database, options)
                rows += some
                goals.append(goal)
                if size == SMALLEST:
                    fresh = options.amount(FRESH, least=5)
                    row, late = await _through_nats(settings, vectors, asked, fresh)
                    rows.append(row)
                    goals.append(
                        Goal("s until visible after publish, p99", late, VISIBLE, at_most=True)
                    )
        finally:
            await database.close()
    return Result(
        "search",
        f"{DIMENSIONS} numbers each, the nearest {K}",
        rows,
        goals,
        [
            f"{BATCH} queries are searched for together in process, by one thread, and one after "
            "the other in ClickHouse. Recall is against looking at every vector."
        ],
    )


class _Asked:
    """What is searched for: queries with their nearest vectors, and many, of which rates are."""

    def __init__(self, queries: Floats, vectors: Floats, options: Options):
        self.queries = queries
        self.many = np.tile(queries, (-(-options.amount(LEAST, least=BATCH) // len(queries)), 1))
        near = queries @ vectors.T
        self._best = [set(np.argpartition(of, -K)[-K:].tolist()) for of in near]

    def recall(self, found: list[list[int]]) -> Figure:
        """Of what was found for the queries, or for the first of them."""
        pairs = zip(found, self._best[: len(found)], strict=True)
        return Figure((sum(len(set(some) & best) / K for some, best in pairs) / len(found),), "")


async def _of_size(
    vectors: Floats, asked: _Asked, database: ClickHouse, options: Options
) -> tuple[list[Row], Goal]:
    """Bare, as a shard, and in ClickHouse."""
    count = len(vectors)
    # Whatever the scale: with a graph.
    parameters = Parameters(exact_below=min(20_000, count // 2))
    async with asyncio.TaskGroup() as group:  # what takes long
        indexing = group.create_task(asyncio.to_thread(_indexed, vectors, parameters))
        storing = group.create_task(_stored(database, vectors, options.say))
    rows = await asyncio.to_thread(_in_process, indexing.result(), asked, options)
    bare, ours = (row.figures["queries/s"] for row in rows)
    rows.append(await _in_clickhouse(database, count, asked, storing.result()))
    for row in rows:  # the largest takes so long that one may not wait for its end
        figures = ", ".join(f"{name} {of.median:,.3g}" for name, of in row.figures.items())
        options.say(f"{row.name}: {figures}")
    return rows, Goal(f"of bare usearch at {count:,}", ours.times(bare), OF_BARE)


def _indexed(vectors: Floats, parameters: Parameters) -> Shard:
    """A shard that has laid its vectors anew, as a graph."""
    shard = Shard(parameters)
    for number, one in enumerate(vectors):
        shard.add(number, number, one)
    renewal = shard.renewal()
    assert renewal is not None
    shard.renew(renewal, renewal.made())
    return shard


def _bare(shard: Shard, folder: Path) -> usearch.index.Index:
    """The graph of a shard for the library alone."""
    assert shard.rows is not None
    assert shard.rows.graph is not None
    file = folder / "graph"
    file.write_bytes(shard.rows.graph.saved())
    parameters = shard.parameters
    bare = usearch.index.Index(
        ndim=DIMENSIONS,
        metric="cos",
        dtype=parameters.dtype,
        connectivity=parameters.connectivity,
        expansion_add=parameters.expansion_add,
        expansion_search=parameters.expansion_search,
    )
    bare.load(file)
    file.unlink()
    return bare


def _in_process(shard: Shard, asked: _Asked, options: Options) -> list[Row]:
    """The bare library, and a shard, in turns: recall by the queries, a rate by many of them."""
    bare, count = _bare(shard, options.folder), len(shard)

    def barely(some: Floats) -> list[list[int]]:
        found: list[list[int]] = bare.search(some, K, threads=1).keys.tolist()
        return found

    def ours(some: Floats) -> list[list[int]]:
        return [[int(hit.key) for hit in hits] for hits in shard.search(some, K, {})]

    rates: dict[str, list[float]] = {"usearch": [], "shard": []}
    recalls: dict[str, Figure] = {}
    for _ in range(options.repeat):
        for name, search in (("usearch", barely), ("shard", ours)):
            recalls[name] = asked.recall(search(asked.queries))
            began = time.perf_counter()
            for at in range(0, len(asked.many), BATCH):
                search(asked.many[at : at + BATCH])
            rates[name].append(len(asked.many) / (time.perf_counter() - began))
    figures = {
        name: {
            "queries/s": Figure(tuple(rates[name]), "queries/s"),
            "recall@10": recalls[name],
        }
        for name in rates
    }
    assert shard.rows is not None
    size = count * DIMENSIONS * 2  # bf16
    figures["shard"]["bytes of the vectors' own"] = Figure((shard.rows.nbytes / size,), "x")
    return [
        Row(f"{name}, {count:,}", figures[one])
        for name, one in (("bare usearch", "usearch"), ("mqinfer, in process", "shard"))
    ]


async def _stored(database: ClickHouse, vectors: Floats, say: Callable[[str], None]) -> float:
    """Let ClickHouse have them, indexed; the seconds that its index took."""
    schema = schema_of(Vector)
    await database.command(f"DROP TABLE IF EXISTS {schema.storage}")
    await database.command(schema.create_storage())
    await database.command(schema.create_view())
    columns = [*(column.name for column in schema.columns), *(name for name, _ in INSERTED)]
    types = [schema.types[name] for name in columns]
    for at in range(0, len(vectors), 5000):
        if at % 50_000 == 0:
            say(f"{len(vectors):,} vectors, {at:,} of them in ClickHouse")
        part = vectors[at : at + 5000]
        numbers = range(at, at + len(part))
        origins = [Origin(f"id{n}", sequence=n, published=(n + 1) * 10**6) for n in numbers]
        data = [[str(n) for n in numbers], part.tolist(), *frame_values(origins)]
        await database.insert(schema.storage, columns, types, data, token=str(at))
    # Last, and of one part: each merge of parts builds the index of its rows anew.
    await database.command(f"OPTIMIZE TABLE {schema.storage} FINAL")
    say(f"{len(vectors):,} vectors, ClickHouse indexes them")
    began = time.perf_counter()
    await create_vector_index(database, Vector, DIMENSIONS)
    return time.perf_counter() - began


async def _in_clickhouse(database: ClickHouse, count: int, asked: _Asked, took: float) -> Row:
    """The two steps of `search_table`, one query after the other."""
    queries = asked.queries[:OF_TABLE]
    await search_table(database, Vector, queries[0], K)  # which reads the index
    began, found = time.perf_counter(), []
    for one in queries:
        rows = await search_table(database, Vector, one, K)
        found.append([int(row["name"]) for row in rows])
    rate = len(queries) / (time.perf_counter() - began)
    return Row(
        f"ClickHouse in two steps, {count:,}",
        {
            "queries/s": Figure((rate,), "queries/s"),
            "recall@10": asked.recall(found),
            "indexed in": Figure((took,), "s"),
        },
    )


async def _through_nats(
    settings: Settings, vectors: Floats, asked: _Asked, fresh: int
) -> tuple[Row, float]:
    """Clients side by side, and then how long a vector takes to be found: p99, in seconds."""
    async with Harness(app, settings) as harness:
        keeping = Keeping(app, wiring.keeping(app, harness.services, None, 3600.0))
        running = asyncio.create_task(keeping.run())
        try:
            for at in range(0, len(vectors), 1000):
                part = enumerate(vectors[at : at + 1000], start=at)
                await harness.publish(*(Vector(str(n), one.tolist()) for n, one in part))

            def there() -> bool:
                return sum(one.count for one in keeping.holding().shards) == len(vectors)

            await until(lambda: there() and not keeping.not_ready(), "all vectors", 600.0)
            found = [await index_hits(harness, one) for one in asked.queries]
            left, began, done = iter(asked.many), time.perf_counter(), 0

            async def client() -> None:
                nonlocal done
                for one in left:
                    await index_hits(harness, one)
                    done += 1

            await asyncio.gather(*(client() for _ in range(CLIENTS)))
            rate = done / (time.perf_counter() - began)
            late = [await _visible(harness, n) for n in range(fresh)]
        finally:
            keeping.stop()
            await running
    row = Row(
        f"mqinfer, through NATS, {len(vectors):,}",
        {
            "queries/s": Figure((rate,), "queries/s"),
            "recall@10": asked.recall(found),
            "visible, p50": Figure((median(late),), "s"),
        },
    )
    return row, float(np.quantile(late, 0.99))


async def index_hits(harness: Harness, query: Floats) -> list[int]:
    """What a client is told."""
    return [int(hit.key) for hit in await harness.client.search(index, query, K)]


async def _visible(harness: Harness, number: int) -> float:
    vector = np.random.default_rng(10_000 + number).normal(size=DIMENSIONS).astype(np.float32)
    key, began = str(-1 - number), time.perf_counter()
    await harness.client.publish(Vector(key, vector.tolist()), id=key)
    while True:
        if (await harness.client.search(index, vector, 1))[0].key == key:
            return time.perf_counter() - began
        await asyncio.sleep(0.001)
