"""What outlives processes: snapshots, the table, generations; kills, and two versions."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from mqinfer import wiring
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.errors import Unavailable
from mqinfer.search import places
from mqinfer.search.roll import called
from mqinfer.settings import Settings
from mqinfer.stack import NatsServer
from mqinfer.testing import Harness, until
from tests.search.support import Floats, clustered, holding, keys, messages, seen
from tests.support.search_app import Vector, app, pictures

ROOT = Path(__file__).parents[2]
APP = "tests.support.search_app:app"
MODEL = "searched_vector"


@asynccontextmanager
async def serving(settings: Settings, *more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`mqinfer index APP serve` in a process of its own."""
    environ = {
        **os.environ,
        "MQINFER_NATS_URL": settings.nats_url,
        "MQINFER_CLICKHOUSE_URL": settings.clickhouse_url,
        "MQINFER_BLOBS": str(settings.blobs),
        "PYTHONPATH": str(ROOT),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mqinfer", "index", APP, "serve", "--log-level", "warning", *more),
        cwd=ROOT,
        env=environ,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            assert await process.wait() == 0


async def all_keys(harness: Harness, vectors: Floats) -> list[object]:
    """Every key that is held, as often as it is."""
    return sorted(keys(await harness.client.search("pictures", vectors[0], 1000)), key=str)


async def test_killed_processes_miss_nothing_and_have_nothing_twice(
    nats: Settings, url: str
) -> None:
    settings = _with(nats, url)
    vectors = clustered(600)
    async with Harness(app, settings) as harness:
        rows = messages(vectors)
        async with serving(settings, "--snapshot-every", "0.2s") as first:
            await harness.publish(*rows[:300])
            await seen(harness, 300)
            generations = await _saved(harness)
            await harness.publish(*rows[300:500])
            await harness.client.publish(Vector("p3", []), id="gone")
            first.send_signal(signal.SIGKILL)
            await first.wait()
        assert generations
        await harness.publish(*rows[500:])
        async with serving(settings) as one, serving(settings):
            await seen(harness, 599)
            wanted = sorted((f"p{n}" for n in range(600) if n != 3), key=str)
            assert await all_keys(harness, vectors) == wanted
            # One of two replicas dies while searches go on: none fails, none misses a shard.
            stop = asyncio.Event()
            hits = 0

            async def searches() -> None:
                nonlocal hits
                while not stop.is_set():
                    found = await harness.client.search("pictures", vectors[0], 10)
                    assert (found.shards, len(found)) == ("2/2", 10)
                    hits += 1

            async def two() -> bool:
                roll = await called(app, harness.services.core, 0.1)  # type: ignore[arg-type]
                return len(roll.replicas("pictures", MODEL, 1, 0)) == 2 and all(
                    one.ready for held in roll.holdings for one in held.shards
                )

            await until(two, "two replicas")
            async with asyncio.TaskGroup() as group:
                group.create_task(searches())
                await until(lambda: hits > 20, "searches")
                one.send_signal(signal.SIGKILL)
                await one.wait()
                then = hits
                await until(lambda: hits > then + 20, "searches after the death")
                stop.set()
            assert await all_keys(harness, vectors) == wanted


async def _saved(harness: Harness) -> bool:
    generations = wiring.generations(app, harness.services.broker)

    async def there() -> bool:
        found = [await generations.saved("pictures", MODEL, 1, shard) for shard in (0, 1)]
        return all(one is not None and one.count for one in found)

    return await until(there, "snapshots")


def _with(settings: Settings, url: str) -> Settings:
    return replace(settings, clickhouse_url=url)


async def test_the_table_is_the_record_and_check_tells_what_lacks(
    nats: Settings,
    url: str,
    db: ClickHouse,
    told: Callable[..., Awaitable[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = _with(nats, url)
    monkeypatch.setenv("MQINFER_CLICKHOUSE_URL", url)
    monkeypatch.setenv("MQINFER_BLOBS", str(settings.blobs))
    vectors = clustered(50)
    async with Harness(app, settings) as harness:
        await harness.publish(*messages(vectors))
        moved = Vector("p1", vectors[2].tolist(), "west", 1)
        await harness.client.publish(moved, id="moved")
        await harness.client.publish(Vector("p4", []), id="gone")
        await harness.client.publish(Vector("bad", [float("nan")] * 32), id="bad")
        await harness.drain()
        # The stream has forgotten them, and there is no snapshot.
        await harness.services.broker.client.api(f"$JS.API.STREAM.PURGE.{app.name}")  # type: ignore[attr-defined]
        async with holding(harness, db):
            await seen(harness, 49)
            (first,) = await harness.client.search("pictures", vectors[2], 1, where={"number": 1})
            assert (first.key, first.values["station"]) == ("p1", "west")
            said = await told("index", APP, "check")
            assert "50 keys in the table, 49 vectors held, 1 refused, 1 lacking" in said
            assert "refused bad: the vector is nan at place 0" in said

            status = await told("index", APP, "status")
            assert "1 (searched)" in status
            assert "1 of 1 ready" in status
            facts = json.loads(await told("index", APP, "status", "--json"))
            assert sum(shard[0]["count"] for shard in facts[0]["shards"]) == 49

            # A generation that is not read yet is not flipped to; one that is, is.
            built = json.loads(await told("index", APP, "build", "--shards", "3", "--json"))
            assert (built[0]["number"], built[0]["shards"]) == (2, 3)
            assert "no generation 7" in await told("index", APP, "flip", "--to", "7", code=2)

            async def ready() -> bool:
                facts = json.loads(await told("index", APP, "status", "--json"))
                return all(shard and shard[0]["ready"] for shard in facts[1]["shards"])

            await until(ready, "the generation")
            assert "searches go to generation 2" in await told("index", APP, "flip")
            assert "is searched" in await told("index", APP, "drop", "--to", "2", code=2)
            assert "is dropped" in await told("index", APP, "drop", "--to", "1")

            async def flipped() -> bool:
                hits = await harness.client.search("pictures", vectors[2], 50)
                return hits.shards == "3/3" and len(hits) == 49

            await until(flipped, "searches of it")
            assert "declared otherwise" in await told("index", APP, "status")
        await told("index", APP, "build")
        assert "has no process" in await told("index", APP, "flip", code=2)
        assert "is not whole" in await told("index", APP, "check", code=1)


async def test_two_versions_of_code_understand_each_other(nats: Settings) -> None:
    """What another version writes and asks has fields that this one does not know."""
    vectors = clustered(20)
    async with Harness(app, nats) as harness:
        bucket = harness.services.broker.bucket(places.bucket(app))
        await bucket.ensure()
        made = {"number": 1, "shards": 2, "colour": "blue", "metric": "cosine"}
        await bucket.save(places.generation("pictures", MODEL, 1), json.dumps(made).encode(), 0)
        current = json.dumps({"generation": 1, "since": "noon"}).encode()
        await bucket.save(places.current("pictures", MODEL), current, 0)
        async with holding(harness):
            await harness.publish(*messages(vectors))
            await seen(harness, 20)
            query = vectors[0] / np.linalg.norm(vectors[0])
            asked = {"vector": query.astype("<f4").tobytes(), "k": 3, "mood": "good"}
            found = []
            for shard in (0, 1):
                where = places.asked(app, "pictures", MODEL, 1, shard)
                payload = msgspec.msgpack.encode(asked)
                answer = await harness.services.core.ask(where, payload, 5.0)  # type: ignore[union-attr]
                found += msgspec.msgpack.decode(answer)["keys"]
            assert "p0" in found
            # What no version asks gets an answer, too.
            answer = await harness.services.core.ask(where, b"?", 5.0)  # type: ignore[union-attr]
            assert "cannot be read" in msgspec.msgpack.decode(answer)["error"]


async def test_a_generation_of_a_version_takes_its_vectors_alone(nats: Settings) -> None:
    vectors = clustered(10)
    async with Harness(app, nats) as harness, holding(harness) as keeping:
        generations = keeping.tools.generations
        made = await generations.build(pictures, MODEL, {"model": "lite0", "version": "2"})
        for n, one in enumerate(messages(vectors)):
            payload = msgspec.msgpack.encode(one)
            headers = {"Mq-Models": f"lite0={1 + n % 2}", "Content-Type": "application/msgpack"}
            await harness.publish_bytes(app.subject(Vector), payload, headers)

        async def counts() -> tuple[int, ...]:
            found = [
                await harness.client.search("pictures", vectors[0], 50, generations={MODEL: number})
                for number in (1, made.number)
            ]
            return tuple(len(one) for one in found)

        async def all_there() -> bool:
            try:
                return await counts() == (10, 5)
            except Unavailable:
                return False

        await until(all_there, "both generations")
        # Whoever deletes asks no model: it counts in a generation of any version.
        await harness.publish(Vector("p1", []), Vector("p2", []))

        async def both_gone() -> bool:
            return await counts() == (8, 4)

        await until(both_gone, "deletions")


async def test_a_server_that_dies_and_a_stream_that_is_made_anew(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats", log=tmp_path / "nats.log")
    await server.start()
    try:
        await server.wait_ready(60)
        settings = Settings.load({}, nats_url=server.url, blobs=str(tmp_path / "blobs"), grace=5.0)
        vectors = clustered(30)
        rows = messages(vectors)
        async with Harness(app, settings) as harness:
            async with holding(harness):
                await harness.publish(*rows[:10])
                await seen(harness, 10)
                server.kill()  # and with it the consumer, which is in its memory
                await server.start()
                await server.wait_ready(60)
                await harness.publish(*rows[10:20])
                await seen(harness, 20)
            # Its places begin anew, and all that it has is newer than what the snapshot knows.
            await harness.services.broker.client.api(f"$JS.API.STREAM.DELETE.{app.name}")  # type: ignore[attr-defined]
        async with Harness(app, settings) as harness, holding(harness):
            await harness.client.publish(Vector("p3", []), id="gone")
            await harness.publish(*rows[20:])
            await seen(harness, 29)
            assert "p3" not in await all_keys(harness, vectors)
    finally:
        await server.stop()
