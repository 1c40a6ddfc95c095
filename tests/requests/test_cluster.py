"""Requests and a job in a cluster of three: leaders of their streams are killed at work."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from mqinfer import App, Message, Reject
from mqinfer.client import Client
from mqinfer.completion import roots
from mqinfer.errors import Unavailable
from mqinfer.jobs.job import Job
from mqinfer.requests import places
from mqinfer.requests.listing import listed
from mqinfer.requests.request import Request
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from tests.faults.servers import nats_servers
from tests.support.cluster import has_leader, leader

app = App("trio", replicas=3)
EACH, ROWS = 40, 120  # requests that are asked at a time; rows of the job


class Ask(Message):
    n: int


class Leaf(Message):
    n: int
    i: int


class Grade(Message):
    n: int
    i: int


@app.stage(ack_wait=5.0)
async def cut(ask: Ask) -> list[Leaf]:
    return [Leaf(ask.n, i) for i in range(ask.n % 7)]


@app.stage(ack_wait=5.0)
async def grade(leaf: Leaf) -> Grade:
    await asyncio.sleep(0.005)
    if leaf.i == 4:
        raise Reject("too dark")
    return Grade(leaf.n, leaf.i)


app.endpoint("grade", Ask, answers=Grade, deadline="1h", keep="1h")


def truth(n: int) -> tuple[str, list[Grade]]:
    fan = n % 7
    return "partial" if fan > 4 else "succeeded", [Grade(n, i) for i in range(fan) if i != 4]


@dataclass
class Asked:
    """What one who asks was told."""

    n: int
    id: str = ""
    status: str = ""
    answers: list[Grade] = field(default_factory=list)
    late: float = 0.0  # seconds from the end until this was known


T = TypeVar("T")


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """What a call gives, made again while there is no leader."""
    while True:
        try:
            return await call()
        except Unavailable:
            await asyncio.sleep(0.1)


async def ask(client: Client, one: Asked) -> None:
    """Ask under a key, and wait; every other one hears events."""
    request: Request[Grade] = await patiently(
        lambda: client.request(Ask(one.n), endpoint="grade", key=f"n{one.n}")
    )
    one.id = request.id
    heard: list[Grade] = []
    if one.n % 2:
        after = 0

        async def follow() -> None:
            nonlocal after
            async for event in request.events(after=after):
                after = event.number
                if event.answer is not None:
                    heard.append(event.answer)

        await patiently(follow)
    else:
        await patiently(request.wait)
    one.late = time.time() - request.expires + 3600.0
    one.status = request.status
    one.answers = list(request.answers)
    if one.n % 2:
        assert Counter(heard) == Counter(one.answers), one


async def test_each_request_ends_once_though_leaders_are_killed(tmp_path: Path) -> None:
    servers = nats_servers(tmp_path, 3)
    await asyncio.gather(*(server.start() for server in servers))
    try:
        await asyncio.gather(*(server.wait_ready(120) for server in servers))
        urls = ",".join(server.url for server in servers)
        settings = Settings.load({}, nats_url=urls, blobs=str(tmp_path / "blobs"), grace=5.0)
        await until(lambda: has_leader(settings), "a leader of the cluster", timeout=120)
        asked = [Asked(n) for n in range(3 * EACH)]
        led = (f"KV_{places.bucket(app)}", roots.stream(app))
        async with Harness(app, settings) as harness, harness.worker() as worker:
            await until(lambda: not worker.not_ready(), "a worker", timeout=60)
            client = harness.client
            rows = [Ask(1000 + n) for n in range(ROWS)]
            job = await patiently(lambda: client.submit("grade", rows, key="j", chunk=5))
            async with asyncio.timeout(240), asyncio.TaskGroup() as group:
                following = group.create_task(patiently(job.wait))
                for part, stream in enumerate((*led, "")):
                    for one in asked[part * EACH : (part + 1) * EACH]:
                        group.create_task(ask(client, one))
                    done = part * EACH + EACH // 3
                    await until(lambda done=done: ended(asked) >= done, "answers", timeout=120)
                    if stream:  # in the middle of the work
                        killed = servers[int((await leader(harness, stream)).removeprefix("n"))]
                        killed.kill()
                        await killed.wait()
                        await killed.start()
                        await killed.wait_ready(120)
            assert following.result().status == "partial"
        async with Harness(app, settings) as harness:
            await compare(harness, asked, await patiently(lambda: harness.client.job(job.id)))
    finally:
        await asyncio.gather(*(server.stop() for server in servers))


def ended(asked: list[Asked]) -> int:
    return sum(bool(one.status) for one in asked)


async def compare(harness: Harness, asked: list[Asked], job: Job) -> None:
    """Each is as it must be, in what is kept and in what was told."""
    streams = harness.services.streams
    assert streams is not None

    async def states() -> dict[str, tuple[str, int]]:
        found = {one.id: one async for one in listed(app, streams)}
        return {n: (one.status, len(one.answers)) for n, one in found.items()}

    kept = await patiently(states)
    assert len(kept) == len(asked)
    for one in asked:
        assert (one.status, one.answers) == truth(one.n), one
        assert kept[one.id] == (one.status, len(one.answers))
    # Nobody hears of an end by chance: what is pushed may be lost, and is looked for.
    assert max(one.late for one in asked) < 60, sorted(one.late for one in asked)[-5:]

    async def results() -> list[tuple[int, str, list[Grade]]]:
        return [(row.row, row.status, list(row.answers)) async for row in job.results()]  # type: ignore[arg-type]

    for (row, status, answers), n in zip(await patiently(results), range(ROWS), strict=True):
        assert row == n + 1
        assert (status, answers) == truth(1000 + n), row
    assert {letter.kind for letter in await harness.dead()} <= {"rejected"}
