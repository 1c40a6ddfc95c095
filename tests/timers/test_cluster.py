"""Timers in a cluster of three: the leader of their stream is killed around the times."""

from __future__ import annotations

import asyncio
import datetime
from collections import Counter
from pathlib import Path

from mqinfer import App, Context, Message, Tick
from mqinfer.errors import Unavailable
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from mqinfer.timers import places
from tests.faults.servers import nats_servers
from tests.support.cluster import has_leader, leader

app = App("three", replicas=3)
COUNT = 60


class Ask(Message):
    number: int


class Due(Message):
    number: int


class Done(Message):
    what: str


@app.stage(later=Due, ack_wait=5.0)
async def ask(message: Ask, ctx: Context) -> None:
    await ctx.later(Due(message.number), after=3600, name=str(message.number))
    await ctx.later(Due(message.number), after=1 + message.number * 0.2, name=str(message.number))


@app.stage(ack_wait=5.0)
async def due(message: Due) -> Done:
    return Done(str(message.number))


@app.every(1, ack_wait=5.0)
async def beat(tick: Tick) -> Done:
    return Done(tick.at.isoformat())


async def test_the_leader_is_killed_around_the_times(tmp_path: Path) -> None:
    servers = nats_servers(tmp_path, 3)
    await asyncio.gather(*(server.start() for server in servers))
    try:
        await asyncio.gather(*(server.wait_ready(120) for server in servers))
        urls = ",".join(server.url for server in servers)
        settings = Settings.load({}, nats_url=urls, blobs=str(tmp_path / "blobs"), grace=5.0)
        await until(lambda: has_leader(settings), "a leader of the cluster", timeout=120)
        async with Harness(app, settings) as harness, harness.worker():
            await harness.publish(*(Ask(number) for number in range(COUNT)))
            for part in (5, 25):
                await until(lambda part=part: come(harness, part), f"{part} timers", timeout=120)
                killed = servers[int((await leader(harness, "three=timers")).removeprefix("n"))]
                killed.kill()
                await killed.wait()
                await killed.start()
                await killed.wait_ready(120)
            await until(lambda: come(harness, COUNT), "all timers", timeout=180)
            await until(lambda: settled(harness), "all answers", timeout=180)
            for stream in ("three=timers", "three", "three-dead"):  # which are looked at next
                await leader(harness, stream)
        await check(settings)
    finally:
        await asyncio.gather(*(server.stop() for server in servers))


async def come(harness: Harness, count: int) -> bool:
    try:
        return len(await harness.stored(subject="three.due")) >= count
    except Unavailable:
        return False  # an election


async def settled(harness: Harness) -> bool:
    try:
        return [await harness.lag(name) for name in ("ask", "due")] == [0, 0]
    except Unavailable:
        return False


async def check(settings: Settings) -> None:
    async with Harness(app, settings) as harness:
        stored = await harness.stored(subject="three.due")
        ticks = await harness.stored(subject="three.=tick.beat")
        for one in (*stored, *ticks):
            assert one.time >= datetime.datetime.fromisoformat(one.headers[places.DUE])
        done = Counter(one.what for one in await harness.messages(Done))
        assert set(done.values()) == {1}
        assert {what for what in done if what.isdecimal()} == {str(n) for n in range(COUNT)}
        ids = Counter(one.headers["Mq-Id"] for one in stored)
        assert len(ids) == COUNT
