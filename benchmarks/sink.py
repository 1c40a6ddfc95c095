"""sink: rows a second into a table beside bare bulk inserts, and the time from publish to visible.

The rows are made by a stage, one of each message, with the identity and lineage that rows have,
and drained by `mqinfer worker -s sink-reading`; once as they travel, many in a message, and once
each in a message of its own (`pack=False`). The bare inserts take columns of typed values that are
ready in memory: those that the sink stores, and those of the rows alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect

from benchmarks import apps, load
from benchmarks.results import Figure, Goal, Options, Result, Row
from benchmarks.times import quantile
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.adapters.jetstream import JetStream
from mqinfer.ports import ConsumerSpec, Origin
from mqinfer.settings import Settings
from mqinfer.tables.block import build_block
from mqinfer.tables.intotable import IntoTable
from mqinfer.tables.sink import Sink
from mqinfer.tables.tables import schema_of
from mqinfer.testing import until

# Through JetStream, and from memory: the latter are enough for inserts to overlap as they do.
QUEUED, ROWS, BLOCK = 400_000, 800_000, 100_000
ALONE = 100_000  # rows that travel one by one, and inputs of the way from publish to table
RATE, SECONDS = 1_000, 10
OF_BARE, FROM_STREAM, TIMES_ALONE, VISIBLE_SECONDS = 0.7, 0.5, 2.0, 1.5
# App and stream of each way to travel: the row's table, and the consumer that reads most of it.
PACKED = ("readings", "rows", "reading", "sink-reading-packs")
SINGLE = ("alone", "alone", "alone", "sink-alone")
Way = tuple[str, str, str, str]
POLL, TICK = 0.02, 0.005
_BARE = """
CREATE OR REPLACE TABLE bare (n Int64, station String, time DateTime64(6, 'UTC'), label String,
score Float64, value Float64) ENGINE = MergeTree ORDER BY (station, time)
"""
COLUMNS = apps.Reading.__struct_fields__


async def measure(options: Options) -> Result:
    """Drain the same rows again and again; then publish at a steady rate, and look."""
    count, queued = options.amount(ROWS, least=1000), options.amount(QUEUED, least=1000)
    alone = options.amount(ALONE, least=1000)
    seconds = max(1.0, SECONDS * min(options.scale, 1.0))
    found: dict[str, list[float]] = {}
    visible: list[list[float]] = []
    servers = load.servers(options.folder / "stack", clickhouse=True)
    async with servers as (settings, jetstream):
        database = ClickHouse(settings.clickhouse_url)
        bench = _Bench(options, settings, jetstream, database)
        items = [
            (apps.reading(n), Origin(f"rows:{n}", ("rows:0",), "measure")) for n in range(count)
        ]
        columns = [list(column) for column in zip(*(_values(row) for row, _ in items), strict=True)]
        stored = build_block(schema_of(apps.Reading), items)
        await bench.prepare(PACKED, queued)
        await bench.prepare(SINGLE, alone)
        amounts = {"sink": queued, "alone": alone, "way": alone, "way alone": alone}
        for number in range(options.repeat):
            for name, work in (
                ("sink", bench.drain(PACKED, queued)),
                ("alone", bench.drain(SINGLE, alone)),
                ("way", bench.way(PACKED, f"way-{number}", alone)),
                ("way alone", bench.way(SINGLE, f"way-alone-{number}", alone)),
                ("write", bench.write(items)),
                ("stored", bench.bare("bare_stored", stored.names, stored.data)),
                ("bare", bench.bare("bare", COLUMNS, columns)),
            ):
                wall, cpu = await work
                done = amounts.get(name, count)
                found.setdefault(name, []).append(done / wall)
                found.setdefault(f"{name} cpu", []).append(1e6 * cpu / done)
            rates = ", ".join(
                f"{name} {found[name][-1]:,.0f}"
                for name in ("sink", "alone", "way", "way alone", "write", "stored", "bare")
            )
            options.say(f"{rates} rows/s")
        for repetition in range(options.repeat):
            visible.append(await bench.visible(f"visible-{repetition}", int(RATE * seconds)))
            options.say(f"p99 from publish to visible {quantile(visible[-1], 0.99):.2f} s")
        await database.close()
    rows = [
        Row(
            title,
            {
                "rows/s": Figure(tuple(found[name]), "rows/s"),
                "client µs a row": Figure(tuple(found[f"{name} cpu"]), "µs"),
            },
        )
        for name, title in (
            ("sink", "mqinfer sink, from JetStream"),
            ("alone", "the same, each row a message (pack=False)"),
            ("way", "publish to table: a stage of one row a message, and its sink, one process"),
            ("way alone", "the same, each row a message (pack=False)"),
            ("write", "its inserts alone, rows from memory, two blocks at a time"),
            ("stored", "clickhouse_connect, the same stored columns"),
            ("bare", "clickhouse_connect, the rows' own columns"),
        )
    ]
    rows.append(
        Row(
            f"publish to visible at {RATE:,} rows/s",
            {
                name: Figure(tuple(quantile(one, q) for one in visible), "s")
                for name, q in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))
            },
        )
    )
    sink, _, way, way_alone, write, stored, bare, visibly = (row.figures for row in rows)
    return Result(
        "sink",
        f"{count:,} rows of {len(COLUMNS)} columns, {queued:,} from JetStream",
        rows,
        goals=[
            Goal(
                "inserts, of a bare insert of the same stored rows",
                write["rows/s"].times(stored["rows/s"]),
                OF_BARE,
            ),
            Goal(
                "inserts, of a bare insert without lineage",
                write["rows/s"].times(bare["rows/s"]),
                OF_BARE,
            ),
            Goal(
                "from JetStream, of a bare insert of the same stored columns",
                sink["rows/s"].times(stored["rows/s"]),
                FROM_STREAM,
            ),
            Goal(
                "times each row a message, publish to table",
                way["rows/s"].times(way_alone["rows/s"]),
                TIMES_ALONE,
            ),
            Goal(
                "s from publish to visible, p99",
                visibly["p99"].median,
                VISIBLE_SECONDS,
                at_most=True,
            ),
        ],
        notes=[
            "The sink reads packs of rows from JetStream, decodes and acknowledges them, and "
            "stores nine columns of lineage beside the rows' own; the bare inserts start from "
            f"columns in memory, all in blocks of {BLOCK:,}.",
            f"Publish to table: {alone:,} messages lie in the stream; of rows that travel one by "
            f"one there are as many, of those in packs {queued:,}.",
            "Visible: from the scheduled publish of the message, through stage and sink, to the "
            f"answer of a query of the view, every {POLL * 1e3:.0f} ms.",
        ],
        chart="rows/s",
    )


def _values(row: apps.Reading) -> tuple[Any, ...]:
    return tuple(getattr(row, column) for column in COLUMNS)


class _Bench:
    def __init__(
        self, options: Options, settings: Settings, jetstream: JetStream, database: ClickHouse
    ):
        self._folder: Path = options.folder
        self._settings = settings
        self._jetstream = jetstream
        self._database = database

    async def prepare(self, way: Way, count: int) -> None:
        """Let the stage write the rows, and the sink make its table."""
        _, stream, table, _ = way
        await self._fill(stream, count)
        async with self._worker(way, stream, "measure"):
            await load.drained(self._jetstream, stream, "measure", done=count)
        await self.drain(way, count)  # the first time everywhere, and the table
        if table == "alone":
            return
        url = urlsplit(self._settings.clickhouse_url)
        self._client = await asyncio.to_thread(
            clickhouse_connect.get_client, host=url.hostname, port=url.port, compress="lz4"
        )
        await self._database.command(_BARE)
        await self._database.command(
            "CREATE OR REPLACE TABLE bare_stored AS reading__storage "
            "ENGINE = MergeTree ORDER BY (station, time)"
        )

    async def _fill(self, stream: str, count: int) -> None:
        await load.create(self._jetstream, stream)
        await load.fill(self._jetstream, f"{stream}.in", load.items(0, count, size=0))
        await load.expect(self._jetstream, stream, f"{stream}.in", count)

    async def drain(self, way: Way, count: int) -> tuple[float, float]:
        """Seconds that the sink takes for all rows: by the clock, and of its process."""
        _, stream, table, consumer = way
        token = "=pack." if consumer.endswith("-packs") else ""
        subject = f"{stream}.{token}{table}"
        messages = await load.stored(self._jetstream, stream, subject)
        await self._jetstream.ensure_consumer(ConsumerSpec(consumer, stream, (subject,)))
        async with self._worker(way, stream, f"sink-{table}") as worker:
            began, ended, _ = await load.drained(
                self._jetstream, stream, consumer, done=messages, process=worker
            )
            cpu = worker.cpu()
        await self._check(table, count)
        await self._database.command(f"TRUNCATE TABLE {table}__storage")
        await self._jetstream.delete_consumer(stream, consumer)
        return ended - began, cpu

    async def way(self, way: Way, stream: str, count: int) -> tuple[float, float]:
        """The same of a stage and its sink in one process, until all its rows are stored."""
        _, _, table, consumer = way
        await self._fill(stream, count)
        async with self._worker(way, stream, "measure", f"sink-{table}") as worker:
            began, _, _ = await load.drained(
                self._jetstream, stream, "measure", done=count, process=worker
            )
            while True:
                state = await self._jetstream.consumer_state(stream, consumer)
                if state is not None and not state.lag:
                    break
                worker.check()
                await asyncio.sleep(load.LOOK)
            ended, cpu = time.perf_counter(), worker.cpu()
        await self._check(table, count)
        await self._database.command(f"TRUNCATE TABLE {table}__storage")
        await load.drop(self._jetstream, stream)
        return ended - began, cpu

    async def write(self, items: list[tuple[apps.Reading, Origin]]) -> tuple[float, float]:
        """The same of what the sink does with rows once it has them."""
        sink = Sink(self._database, apps.Reading)
        await sink.prepare()
        blocks = [items[start : start + BLOCK] for start in range(0, len(items), BLOCK)]

        async def store() -> None:
            while blocks:
                if refused := await sink.write(blocks.pop()):
                    raise RuntimeError(f"ClickHouse refuses {len(refused)} rows")

        wall, cpu = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(IntoTable.concurrency):
                group.create_task(store())
        found = time.perf_counter() - wall, time.process_time() - cpu
        await self._check("reading", len(items))
        await self._database.command("TRUNCATE TABLE reading__storage")
        return found

    async def bare(
        self, table: str, names: Sequence[str], columns: Sequence[Sequence[Any]]
    ) -> tuple[float, float]:
        """The same of a bulk insert in blocks."""
        count = len(columns[0])
        blocks = [
            [column[start : start + BLOCK] for column in columns]
            for start in range(0, count, BLOCK)
        ]

        def insert() -> tuple[float, float]:
            wall, cpu = time.perf_counter(), time.process_time()
            for block in blocks:
                self._client.insert(table, block, column_names=names, column_oriented=True)
            return time.perf_counter() - wall, time.process_time() - cpu

        found = await asyncio.to_thread(insert)
        await self._check(table, count)
        await self._database.command(f"TRUNCATE TABLE {table}")
        return found

    async def visible(self, app: str, count: int) -> list[float]:
        """Seconds from publish to visible of rows that are published at a steady rate."""
        await load.create(self._jetstream, app)
        subject = f"{app}.in"
        async with self._worker(PACKED, app, "measure", "sink-reading"):
            await load.fill(self._jetstream, subject, load.items(count, 1, size=0))  # to warm up
            await until(lambda: self._seen(count), "the first row")
            async with asyncio.TaskGroup() as group:
                scheduled = time.perf_counter() + 0.1
                group.create_task(self._publish(subject, scheduled, count))
                seen = await self._poll(count)
        await self._check("reading", count + 1)
        await self._database.command("TRUNCATE TABLE reading__storage")
        await load.drop(self._jetstream, app)
        return [seen[n] - (scheduled + n / RATE) for n in range(count)]

    async def _publish(self, subject: str, scheduled: float, count: int) -> None:
        sent = 0
        while sent < count:
            due = min(count, int((time.perf_counter() - scheduled) * RATE) + 1)
            for payload in load.items(sent, due - sent, size=0):
                await self._jetstream.client.publish(subject, payload)
            sent = max(sent, due)
            await asyncio.sleep(TICK)

    async def _poll(self, count: int) -> dict[int, float]:
        """When each row was seen for the first time."""
        seen: dict[int, float] = {}
        low = 0
        async with asyncio.timeout(120):
            while len(seen) < count:
                fresh = await self._seen(low, count)
                now = time.perf_counter()
                for n in fresh:
                    seen.setdefault(n, now)
                while low in seen:
                    low += 1
                await asyncio.sleep(POLL)
        return seen

    async def _seen(self, low: int, high: int = 2**62) -> Iterable[int]:
        rows = await self._database.query(
            "SELECT n FROM reading WHERE n >= {low:Int64} AND n < {high:Int64}",
            {"low": low, "high": high},
        )
        return [row["n"] for row in rows]

    async def _check(self, table: str, count: int) -> None:
        (found,) = await self._database.query(
            f"SELECT count() AS rows, uniqExact(n) AS distinct FROM {table}"
        )
        if found != {"rows": count, "distinct": count}:
            raise RuntimeError(f"{table}: {found} instead of {count:,} rows")

    def _worker(self, way: Way, app: str, *tasks: str) -> Any:
        stages = [word for task in tasks for word in ("--stage", task)]
        return load.process(
            self._folder / f"{app}-{'-'.join(tasks)}.log",
            *("mqinfer", "worker", f"benchmarks.apps:{way[0]}", *stages),
            environ=load.environ(self._settings, app),
        )
