"""Outages mean waiting: nothing fails, no attempt is spent, readiness says why, work goes on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from mqinfer import App, Context, Message, Row, Worker
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.settings import Settings
from mqinfer.stack import ClickHouseServer, NatsServer, TritonServer
from mqinfer.testing import Harness, until
from tests.support.models import save_affine

from . import pipeline
from .processes import Proxy
from .support import (
    SOON,
    Double,
    Number,
    blocked,
    done,
    ready,
    redeliveries,
    runner_of,
    runners_of,
    settings_with,
)

# Seconds; longer than the timeout of the stages here: an outage does not count.
OUTAGE = float(os.environ.get("MQINFER_TEST_OUTAGE", "3.5"))


class Answer(Row, table="answer", order_by="value"):
    """A row."""

    value: int


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the pipeline's model."""
    models = tmp_path_factory.mktemp("repository") / "models"
    models.mkdir()
    save_affine(models, pipeline.MODEL)
    return models


async def pulls_nothing(worker: Worker, name: str) -> None:
    """The stage asks for nothing more: there is at most what was asked for before."""
    every = [runner.slots for runner in runners_of(worker, name)]
    before = [slots.in_flight + slots.asked for slots in every]
    await asyncio.sleep(0.7)
    assert before
    for slots, there in zip(every, before, strict=True):
        assert slots.in_flight + slots.asked <= there <= slots.max_messages


@pytest.mark.parametrize("batch", [False, True])
async def test_triton_away(nats: Settings, triton: TritonServer, batch: bool) -> None:
    app = App("away")
    model = app.model(pipeline.MODEL)
    attempts: list[int] = []

    async def value_of(number: Number) -> Double:
        answer = await model(x=np.array([number.value], dtype=np.float32))
        return Double(int(answer["y"][0]))

    if batch:

        @app.stage(name="double", max_in_flight=20, batch_size=8, timeout=3.0, models=(model,))
        async def several(numbers: list[Number], contexts: list[Context]) -> list[Double]:
            attempts.extend(context.attempt for context in contexts)
            return list(await asyncio.gather(*map(value_of, numbers)))

    else:

        @app.stage(name="double", max_in_flight=20, timeout=3.0, models=(model,))
        async def single(number: Number, ctx: Context) -> Double:
            attempts.append(ctx.attempt)
            return await value_of(number)

    settings = settings_with(nats, triton_url=triton.url)
    async with Harness(app, settings) as harness:
        await harness.publish(*(Number(value) for value in range(30)))
        async with harness.worker() as worker:
            await done(harness, "double")
            triton.kill()
            await harness.publish(*(Number(value) for value in range(30, 100)))
            reasons = await blocked(worker, "double", "triton is not available")
            assert all(reason.startswith("stage double") for reason in reasons)
            await asyncio.sleep(OUTAGE)
            assert runner_of(worker, "double").slots.in_flight <= 20
            await triton.bring_up()
            await ready(worker)
            await done(harness, "double")
            assert worker.engine is not None
        doubles = sorted(m.value for m in await harness.messages(Double))
        assert doubles == [2 * value + 1 for value in range(100)]
        assert await harness.dead() == []
        assert set(attempts) == {1}
        assert await redeliveries(harness, "double") == 0


async def test_a_model_that_is_unloaded_stops_only_its_own_stages(
    nats: Settings, triton: TritonServer, tmp_path: Path
) -> None:
    app = App("unloaded")
    model, other = app.model(pipeline.MODEL), app.model("absent")

    class Plain(Message):
        value: int

    class Never(Message):
        value: int

    @app.stage(timeout=3.0)
    async def double(number: Number) -> Double:
        answer = await model(x=np.array([number.value], dtype=np.float32))
        return Double(int(answer["y"][0]))

    @app.stage(timeout=3.0)
    async def never(number: Number) -> Never:
        await other(x=np.zeros(1, dtype=np.float32))
        return Never(number.value)

    @app.stage
    async def plain(number: Number) -> Plain:
        return Plain(number.value)

    settings = settings_with(nats, triton_url=triton.url)
    async with Harness(app, settings) as harness:
        async with asyncio.TaskGroup() as group:
            worker = Worker(app, settings=settings)
            group.create_task(worker.run())
            await harness.publish(*(Number(value) for value in range(10)))
            await blocked(worker, "stage never", "model absent")
            await done(harness, "double", "plain")
            assert not any("double" in reason for reason in worker.not_ready())
            hidden = tmp_path / "hidden"
            (triton.models / pipeline.MODEL).rename(hidden)
            await harness.publish(Number(100))
            reasons = await blocked(worker, "stage double", f"model {pipeline.MODEL}")
            assert not any("plain" in reason for reason in reasons)
            await harness.publish(*(Number(value) for value in range(10, 20)))
            await done(harness, "plain")
            hidden.rename(triton.models / pipeline.MODEL)
            await done(harness, "double")
            assert await harness.lag("never") == 21
            worker.stop()
        doubles = sorted(m.value for m in await harness.messages(Double))
        assert doubles == sorted([2 * v + 1 for v in [*range(20), 100]])
        assert await harness.dead() == []


async def test_clickhouse_away_from_the_start_and_later(nats: Settings, tmp_path: Path) -> None:
    app = App("rows")

    @app.stage
    async def answer(number: Number) -> Answer:
        return Answer(number.value)

    server = ClickHouseServer(tmp_path / "clickhouse", log=tmp_path / "clickhouse.log")
    settings = settings_with(nats, clickhouse_url=server.url)
    names = ("answer", "sink-answer")
    try:
        async with Harness(app, settings) as harness:
            await harness.publish(*(Number(value) for value in range(50)))
            async with asyncio.TaskGroup() as group:
                worker = Worker(app, stages=names, settings=settings)
                group.create_task(worker.run())
                await blocked(worker, "sink-answer", "clickhouse")
                await done(harness, "answer")  # the stage before it is not held up
                await server.start()
                await server.wait_ready()
                await ready(worker)
                await done(harness, *names)
                server.kill()
                await harness.publish(*(Number(value) for value in range(50, 100)))
                await blocked(worker, "sink-answer", "clickhouse")
                await asyncio.sleep(OUTAGE)
                await harness.publish(*(Number(value) for value in range(100, 150)))
                await done(harness, "answer")
                await pulls_nothing(worker, "sink-answer")
                await server.start()
                await server.wait_ready()
                await ready(worker)
                await done(harness, *names)
                worker.stop()
            database = ClickHouse(server.url)
            rows = await database.query("SELECT value FROM answer ORDER BY value")
            await database.close()
            assert [row["value"] for row in rows] == list(range(150))
            assert await harness.dead() == []
            assert await redeliveries(harness, "sink-answer") == 0
    finally:
        await server.stop()


@asynccontextmanager
async def own_nats(folder: Path) -> AsyncIterator[tuple[NatsServer, Settings]]:
    """A nats-server that may be killed, and settings for it."""
    server = NatsServer(folder / "nats", log=folder / "nats.log")
    try:
        await server.start()
        await server.wait_ready()
        blobs = str(folder / "blobs")
        yield server, Settings.load({}, nats_url=server.url, blobs=blobs, grace=5.0)
    finally:
        await server.stop()


async def test_nats_away(tmp_path: Path) -> None:
    app = App("nats")
    attempts: dict[int, int] = {}
    go = asyncio.Event()
    go.set()

    @app.stage(max_in_flight=10, timeout=3.0, ack_wait=10.0, backoff=SOON)
    async def double(number: Number, ctx: Context) -> Double:
        await go.wait()
        attempts[number.value] = ctx.attempt
        return Double(number.value)

    async with (
        own_nats(tmp_path) as (server, settings),
        Harness(app, settings) as harness,
        harness.worker() as worker,
    ):
        await harness.publish(*(Number(value) for value in range(20)))
        await done(harness, "double")
        go.clear()
        await harness.publish(*(Number(value) for value in range(20, 50)))
        slots = runner_of(worker, "double").slots
        await until(lambda: slots.in_flight == 10, "full slots")
        server.kill()
        await blocked(worker, "broker", "connection is lost")
        go.set()  # they end while there is nobody to tell
        await asyncio.sleep(OUTAGE)
        assert slots.in_flight == 10  # held: their answers are not acknowledged
        publishing = asyncio.create_task(harness.publish(Number(100)))
        await server.start()
        await server.wait_ready()
        await publishing
        await ready(worker)
        await done(harness, "double")
        doubles = sorted(m.value for m in await harness.messages(Double))
        assert doubles == [*range(50), 100]
        assert await harness.dead() == []
        # The server may forget that it delivered some, never that this failed.
        assert max(attempts.values()) <= 2


async def test_a_link_that_hangs_half_open(tmp_path: Path) -> None:
    app = App("hanging")

    @app.stage(max_in_flight=10, ack_wait=2.0)
    async def double(number: Number) -> Double:
        return Double(number.value)

    async with own_nats(tmp_path) as (server, settings), Proxy(server.port) as proxy:
        through = settings_with(settings, nats_url=f"nats://127.0.0.1:{proxy.port}")
        async with Harness(app, settings) as harness, asyncio.TaskGroup() as group:
            worker = Worker(app, settings=through)
            group.create_task(worker.run())
            await ready(worker)
            await harness.publish(*(Number(value) for value in range(20)))
            await done(harness, "double")
            assert proxy.hang() == 1
            await harness.publish(*(Number(value) for value in range(20, 60)))
            await done(harness, "double")  # over a connection of its own making
            proxy.drop()
            await ready(worker)
            worker.stop()
            doubles = sorted(m.value for m in await harness.messages(Double))
            assert doubles == list(range(60))
            assert await harness.dead() == []


async def test_a_full_stream(nats: Settings) -> None:
    app = App("full")

    @app.stage(max_in_flight=10, timeout=0.5, ack_wait=2.0)
    async def double(number: Number) -> Double:
        return Double(number.value)

    async with Harness(app, nats) as harness:
        api = harness.services.broker.client.api  # type: ignore[attr-defined]

        async def limit(size: int) -> None:
            info = await api("$JS.API.STREAM.INFO.full")
            answer = await api("$JS.API.STREAM.UPDATE.full", {**info["config"], "max_bytes": size})
            assert "error" not in answer, answer

        await harness.publish(*(Number(value) for value in range(40)))
        async with harness.worker() as worker:
            await done(harness, "double")
            await limit(1)
            # What is in the stream already is delivered anew, as after a crash.
            publishing = asyncio.create_task(harness.publish(*(Number(v) for v in range(40, 80))))
            await until(lambda: harness.services.broker.blocked, "the publisher says why it waits")
            assert "full" in str(harness.services.broker.blocked)
            await asyncio.sleep(1.0)
            assert not publishing.done()
            await limit(-1)
            await publishing

            async def answered() -> bool:
                return len(await harness.messages(Double)) == 80

            # Not the lag: a consumer may not have counted what was stored a moment ago.
            await until(answered, "an answer for each")
            await until(lambda: not worker.not_ready(), "readiness")
        assert sorted(m.value for m in await harness.messages(Double)) == list(range(80))
        assert await harness.dead() == []


async def test_outputs_wait_for_a_full_stream(nats: Settings) -> None:
    app = App("outputs")
    filled = asyncio.Event()
    attempts: list[int] = []

    @app.stage(max_in_flight=10, timeout=3.0, ack_wait=10.0)
    async def double(number: Number, ctx: Context) -> Double:
        attempts.append(ctx.attempt)
        await filled.wait()
        return Double(number.value)

    async with Harness(app, nats) as harness:
        api = harness.services.broker.client.api  # type: ignore[attr-defined]

        async def limit(size: int) -> None:
            info = await api("$JS.API.STREAM.INFO.outputs")
            config = {**info["config"], "max_bytes": size}
            assert "error" not in await api("$JS.API.STREAM.UPDATE.outputs", config)

        await harness.publish(*(Number(value) for value in range(40)))
        async with harness.worker() as worker:
            await until(lambda: len(attempts) == 10, "full slots")
            await limit(1)
            filled.set()
            await blocked(worker, "broker", "full")
            await asyncio.sleep(OUTAGE)
            assert len(attempts) == 10  # it pulls nothing
            await limit(-1)
            await ready(worker)
            await done(harness, "double")
        assert sorted(m.value for m in await harness.messages(Double)) == list(range(40))
        assert set(attempts) == {1}
        assert await harness.dead() == []
