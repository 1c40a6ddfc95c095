"""Bounded: in flight, bytes and memory, whatever is published; a clean stop; worker changes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from mqinfer import App, Message, Row, Worker
from mqinfer.rowpacks.which import pack_subject
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from tests.support.held import Held

from .support import Double, Number, blocked, done, ready, redeliveries, runner_of, settings_with

MIB = 1024 * 1024


class Data(Message, subject="data", wire="msgpack"):
    """Bytes of some size."""

    number: int
    body: bytes


class Size(Message, subject="size"):
    """The answer."""

    number: int
    size: int


class Bulk(Row, table="bulk"):
    """A row of some size."""

    number: int
    text: str


def slow_app(name: str = "slow") -> App:
    """A stage of a hundredth of the producer's speed, with room for 8 MiB."""
    app = App(name)

    @app.stage(max_in_flight=100, max_bytes=8 * MIB, ack_wait=5.0)
    async def measure(data: Data) -> Size:
        await asyncio.sleep(0.05)
        return Size(data.number, len(data.body))

    return app


app = slow_app()


@asynccontextmanager
async def worker_process(
    settings: Settings, folder: Path, target: str, *stages: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`mqinfer worker` in a process of its own; killed at the end if it still runs."""
    environ = {
        **os.environ,
        "MQINFER_NATS_URL": settings.nats_url,
        "MQINFER_CLICKHOUSE_URL": settings.clickhouse_url,
        "MQINFER_BLOBS": settings.blobs,
        "MQINFER_GRACE": "10",
    }
    with (folder / "worker.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mqinfer", "worker", target, *(f"--stage={s}" for s in stages),
            cwd=Path(__file__).parents[2], env=environ, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Memory:
    """The resident memory of a process, from its first look on."""

    def __init__(self, pid: int):
        self._process = psutil.Process(pid)
        self.most = 0

    def look(self) -> int:
        """The memory now; the most is kept."""
        now: int = self._process.memory_info().rss
        self.most = max(self.most, now)
        return now


@pytest.mark.parametrize(("size", "count"), [(1024, 4000), (MIB, 200)])
async def test_a_producer_a_hundred_times_faster(
    nats: Settings, tmp_path: Path, size: int, count: int
) -> None:
    async with (
        Harness(app, nats) as harness,
        worker_process(nats, tmp_path, "tests.faults.test_backpressure:app") as process,
    ):
        broker = harness.services.broker
        await harness.publish(Data(-1, b""))
        await _answered(harness, 1)  # it runs: what it needs by itself is loaded
        memory = Memory(process.pid)
        idle = memory.look()
        held = Held()

        async def watch() -> None:
            while True:
                memory.look()
                state = await broker.consumer_state("slow", "measure")
                assert state is not None
                held.look(state.unacknowledged)
                await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch())
            body = b"x" * size
            for start in range(0, count, 50):
                await harness.publish(*(Data(start + i, body) for i in range(50)))
            await done(harness, "measure", timeout=120)
            watching.cancel()
        assert 1 < held.most <= (100 if size < MIB else 25)
        # The bytes in flight (at least two of the largest messages the server takes, here 16 MiB,
        # and half of that once more: see Slots), as they came and decoded, and some buffers.
        assert memory.most - idle < 64 * MIB, f"{(memory.most - idle) / MIB:.0f} MiB"
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
        assert await harness.dead() == []


async def _answered(harness: Harness, count: int) -> None:
    async def there() -> bool:
        return len(await harness.messages(Size)) >= count

    await until(there, f"{count} answers")


async def test_a_fast_stage_waits_for_the_slow_one_behind_it(nats: Settings) -> None:
    app = App("behind")
    go = asyncio.Event()

    class Slow(Message):
        value: int

    @app.stage(max_in_flight=10, max_downstream=50)
    async def double(number: Number) -> Double:
        return Double(number.value)

    @app.stage(max_in_flight=5)
    async def slow(double: Double) -> Slow:
        await go.wait()
        return Slow(double.value)

    async with Harness(app, nats) as harness:
        published = 0
        enough = asyncio.Event()

        async def publish(count: int) -> None:
            nonlocal published
            await harness.publish(*(Number(published + i) for i in range(count)))
            published += count

        async def produce() -> None:
            while not enough.is_set():
                await publish(20)
                await asyncio.sleep(0.1)

        async with harness.worker() as worker:
            async with asyncio.TaskGroup() as group:
                # It looks at the lag once a second, or later: there is always more to do.
                group.create_task(produce())
                (reason,) = await blocked(worker, "stage double", "wait for slow")
                assert "max_downstream=50" in reason
                enough.set()
            await publish(200)
            slots = runner_of(worker, "double").slots
            # What was asked for before the gate closed is all that may still come.
            bound = len(await harness.messages(Double)) + slots.max_messages
            await asyncio.sleep(1.0)
            assert len(await harness.messages(Double)) <= bound
            assert await harness.lag("double") > 0
            go.set()
            await done(harness, "double", "slow")
            await ready(worker)
        assert sorted(m.value for m in await harness.messages(Slow)) == list(range(published))


async def test_a_sink_behind_a_stopped_clickhouse(nats: Settings, tmp_path: Path) -> None:
    # Nobody listens there, from the beginning to the end.
    settings = settings_with(nats, clickhouse_url="http://default@127.0.0.1:9/default")
    async with (
        Harness(bulk, settings) as harness,
        worker_process(settings, tmp_path, "tests.faults.test_backpressure:bulk") as process,
    ):
        await harness.publish(Number(0))

        async def begun() -> bool:
            return await harness.lag("expand") == 0

        await until(begun, "the first row")
        # Only now has the sink loaded what inserts need.
        log = tmp_path / "worker.log"
        await until(lambda: "waiting for ClickHouse" in log.read_text(), "the sink to wait")
        memory = Memory(process.pid)
        idle = memory.look()
        for start in range(0, 300, 20):
            await harness.publish(*(Number(start + i) for i in range(20)))
            memory.look()
        await until(begun, "the rows", 120)
        assert memory.look() - idle < 64 * MIB
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
        # The rows of what ended in one turn of the loop are one message for the sink.
        waiting = await harness.stored(subject=pack_subject(bulk, Bulk))
        assert await harness.lag("sink-bulk") == len(waiting) > 0
        assert len(await harness.messages(Bulk)) == 301
        assert await harness.dead() == []


bulk = App("bulk")


@bulk.stage(max_in_flight=50)
async def expand(number: Number) -> Bulk:
    """A row of 200 KB."""
    return Bulk(number.value, "x" * 200_000)


# --- a clean stop, joining and leaving -----------------------------------------------------------


held = App("slow")


def told() -> bool:
    return Path(os.environ["MQINFER_BLOBS"], "go").exists()


# Nothing comes back by itself within the time of the test: only what is handed back.
@held.stage(name="measure", max_in_flight=100, ack_wait=600.0)
async def until_told(data: Data) -> Size:
    """Answers the first, and from then on nothing before the file `go` is there."""
    while data.number >= 100 and not told():  # noqa: ASYNC110 - another process tells
        await asyncio.sleep(0.05)
    return Size(data.number, len(data.body))


async def test_a_stop_under_load_redelivers_nothing_that_was_finished(
    nats: Settings, tmp_path: Path
) -> None:
    go = Path(nats.blobs) / "go"
    async with Harness(held, nats) as harness:
        target = "tests.faults.test_backpressure:held"
        async with worker_process(nats, tmp_path, target) as process:
            await harness.publish(*(Data(number, b"x") for number in range(1000)))
            await _answered(harness, 100)
            process.send_signal(signal.SIGTERM)
            go.touch()  # it finishes what it began, and begins no more
            async with asyncio.timeout(60):
                assert await process.wait() == 0
        finished = len(await harness.messages(Size))
        assert 100 <= finished <= 200  # what was answered, and what it was at work on
        state = await harness.services.broker.consumer_state("slow", "measure")
        assert state is not None
        assert state.lag == 1000 - finished  # nothing that was finished is still held
        attempts: dict[int, int] = {}
        again = App("slow")

        @again.stage(max_in_flight=100, ack_wait=600.0)
        async def measure(data: Data) -> Size:
            attempts[data.number] = attempts.get(data.number, 0) + 1
            return Size(data.number, len(data.body))

        # What was handed back is there at once, not after ack_wait.
        async with asyncio.timeout(120):
            await Worker(again, settings=nats, drain=True).run()
        assert len(attempts) == 1000 - finished  # each once, none of the finished ones
        assert set(attempts.values()) == {1}
        sizes = [size.number for size in await harness.messages(Size)]
        assert sorted(sizes) == list(range(1000))
        # Only what was handed back was delivered more than once.
        assert await redeliveries(harness, "measure") <= 200


async def test_workers_join_and_leave(nats: Settings) -> None:
    app = App("join")
    handled: list[int] = []

    @app.stage(max_in_flight=20, ack_wait=5.0)
    async def double(number: Number) -> Double:
        await asyncio.sleep(0.01)
        handled.append(number.value)
        return Double(number.value)

    async with Harness(app, nats) as harness:
        await harness.publish(*(Number(value) for value in range(600)))
        async with harness.worker():
            for joined in range(4):
                async with harness.worker():
                    await until(lambda joined=joined: len(handled) > 100 * (joined + 1))
            await done(harness, "double")
        assert sorted(handled) == list(range(600))  # each once: a stop finishes what it began
        assert sorted(m.value for m in await harness.messages(Double)) == list(range(600))
        assert await harness.dead() == []
