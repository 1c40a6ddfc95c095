"""States in a cluster of three: the leader of their bucket is killed while they change."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path

from mqinfer import App, Message, State, plan
from mqinfer.errors import MqinferError
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from tests.faults.servers import nats_servers
from tests.support.cluster import has_leader, leader

KEYS, EACH = 20, 30
app = App("kept", replicas=3, partitions=4)
BUCKET = f"KV_{plan.memory_bucket(app)}"


class Step(Message, key="who", ordered=True):
    who: str
    number: int


class Sum(Message, key="who"):
    who: str
    number: int
    total: int


class Total(State, ttl="1d"):
    total: int = 0


@app.stage(ack_wait=5.0)
async def add(step: Step, state: Total) -> Sum:
    await asyncio.sleep(0.005)
    state.total += step.number
    return Sum(step.who, step.number, state.total)


async def test_each_message_counts_once_though_leaders_are_killed(tmp_path: Path) -> None:
    servers = nats_servers(tmp_path, 3)
    await asyncio.gather(*(server.start() for server in servers))
    try:
        await asyncio.gather(*(server.wait_ready(120) for server in servers))
        urls = ",".join(server.url for server in servers)
        settings = Settings.load({}, nats_url=urls, blobs=str(tmp_path / "blobs"), grace=5.0)
        await until(lambda: has_leader(settings), "a leader of the cluster", timeout=120)
        async with Harness(app, settings) as harness, harness.worker() as worker:
            await until(lambda: not worker.not_ready(), "a worker", timeout=60)
            for part in range(3):
                for n in range(
                    part * EACH, (part + 1) * EACH
                ):  # in order, also where one is sent again
                    await harness.publish(*(Step(f"k{key}", n) for key in range(KEYS)))
                done = part * EACH * KEYS + EACH * KEYS // 3
                await until(lambda done=done: answered(harness, done), "answers", timeout=180)
                if part < 2:  # in the middle of the work
                    killed = servers[int((await leader(harness, BUCKET)).removeprefix("n"))]
                    killed.kill()
                    await killed.wait()
                    await killed.start()
                    await killed.wait_ready(120)
            await until(lambda: answered(harness, 3 * EACH * KEYS), "all answers", timeout=180)
            await until(lambda: settled(harness), "the end", timeout=180)
        async with Harness(app, settings) as harness:
            sums: dict[str, list[tuple[int, int]]] = defaultdict(list)
            for one in await harness.messages(Sum):
                sums[one.who].append((one.number, one.total))
            expected = [(n, n * (n + 1) // 2) for n in range(3 * EACH)]
            assert dict(sums) == {f"k{key}": expected for key in range(KEYS)}
            states = await harness.client.states("add")
            assert states == {f"k{key}": Total(expected[-1][1]) for key in range(KEYS)}
            assert await harness.dead() == []
    finally:
        await asyncio.gather(*(server.stop() for server in servers))


async def answered(harness: Harness, count: int) -> bool:
    try:
        return len(await harness.stored(subject="kept.sum.>")) >= count
    except MqinferError:
        return False  # an election


async def settled(harness: Harness) -> bool:
    try:
        return await harness.lag("add") == 0
    except MqinferError:
        return False
