"""Requests through what happens to those who answer them, and with many who wait."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

import mqinfer
from mqinfer import App, Message
from mqinfer.errors import PublishError
from mqinfer.replay.ranges import Wanted
from mqinfer.requests import state as states
from mqinfer.requests.requests import Requests
from mqinfer.settings import Settings
from mqinfer.stack import NatsServer
from mqinfer.testing import Harness, until
from tests.support.replay import runs_of, work


class Photo(Message):
    n: int


class Leaf(Message):
    n: int
    i: int


class Grade(Message):
    n: int
    i: int


def pipeline() -> App:
    app = App("plants")

    @app.stage(ack_wait=3.0)
    async def cut(photo: Photo) -> list[Leaf]:
        return [Leaf(photo.n, i) for i in range(photo.n % 5)]

    @app.stage(ack_wait=3.0)
    async def grade(leaf: Leaf) -> Grade:
        return Grade(leaf.n, leaf.i)

    app.endpoint("grade", Photo, answers=Grade)
    return app


def truth(n: int) -> tuple[Grade, ...]:
    return tuple(Grade(n, i) for i in range(n % 5))


async def test_a_thousand_wait_on_one_connection(nats: Settings) -> None:
    async with Harness(pipeline(), nats) as harness:
        client = harness.client
        asked = await asyncio.gather(*(client.request(Photo(n)) for n in range(1000)))
        waiting = [asyncio.create_task(request.result(wait=120)) for request in asked]
        followed = asyncio.create_task(_kinds(asked[4]))
        async with harness.worker(), harness.worker():  # two trackers, too
            found = await asyncio.gather(*waiting)
            assert found == [truth(n) for n in range(1000)]
            kinds = await followed
            assert kinds.count("answer") == 4
            assert kinds[-1] == "end"
        states = await harness.stored("KV_plants-requests")
        assert len(states) == 1000


async def _kinds(request: mqinfer.Request[Grade]) -> list[str]:
    return [event.kind async for event in request]


async def test_whoever_waits_waits_through_a_restart_of_the_server(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats", log=tmp_path / "nats.log")
    await server.start()
    try:
        await server.wait_ready(60)
        settings = Settings.load({}, nats_url=server.url, blobs=str(tmp_path / "blobs"), grace=5.0)
        async with Harness(pipeline(), settings) as harness:
            request = await harness.client.request(Photo(4))
            waiting = asyncio.create_task(request.result(wait=120))
            again = await harness.client.get_request(request.id)
            followed = asyncio.create_task(_kinds(again))
            await asyncio.sleep(0.1)
            server.kill()
            await asyncio.sleep(1.0)
            await server.start()
            await server.wait_ready(60)
            async with harness.worker():
                assert await waiting == truth(4)
                kinds = await followed
                assert (kinds.count("answer"), kinds[-1]) == (4, "end")
    finally:
        await server.stop()


async def test_a_rolling_restart(nats: Settings) -> None:
    async with Harness(pipeline(), nats) as harness:
        stop = asyncio.Event()

        async def roll() -> int:
            rounds = 0
            while not stop.is_set():
                async with harness.worker():
                    await asyncio.sleep(0.3)
                rounds += 1
            return rounds

        async with asyncio.TaskGroup() as group:
            rolling = [group.create_task(roll()) for _ in range(2)]
            for first in range(0, 200, 20):
                asked = [await harness.client.request(Photo(n)) for n in range(first, first + 20)]
                found = await asyncio.gather(*(one.result(wait=120) for one in asked))
                assert found == [truth(n) for n in range(first, first + 20)]
            stop.set()
        assert sum(task.result() for task in rolling) > 2


async def test_the_message_of_one_who_died_is_published_by_a_worker(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def died(*_: Any) -> None:
        """Between the two writes."""

    async with Harness(pipeline(), nats) as harness:
        with monkeypatch.context() as patch:
            patch.setattr(Requests, "_publish", died)
            request = await harness.client.request(Photo(3), key="k")
        assert await harness.stored() == []
        async with harness.worker():
            assert await request.result(wait=60) == truth(3)
            assert len(await harness.messages(Photo)) == 1


async def test_a_message_that_is_refused_is_the_end(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: Any) -> None:
        raise PublishError("no such stream")

    monkeypatch.setattr("mqinfer.requests.requests.publish_root", refused)
    async with Harness(pipeline(), nats) as harness:
        with pytest.raises(PublishError):
            await harness.client.request(Photo(3), key="k")
        assert (await harness.client.request(Photo(3), key="k")).status == "failed"


async def test_a_replay_disturbs_no_request(nats: Settings) -> None:
    app = App("plants")
    hold = asyncio.Event()

    @app.stage
    async def cut(photo: Photo) -> list[Leaf]:
        return [Leaf(photo.n, i) for i in range(photo.n)]

    @app.stage
    async def grade(leaf: Leaf, ctx: mqinfer.Context) -> Grade:
        if ctx.run is None and leaf.i == 1:
            await hold.wait()
        return Grade(leaf.n, leaf.i)

    app.endpoint("grade", Photo, answers=Grade)
    async with Harness(app, nats) as harness, harness.worker():
        done = await harness.client.request(Photo(1), wait=60)
        request = await harness.client.request(Photo(3))

        async def waits() -> bool:
            return len(await harness.messages(Grade)) == 3

        await until(waits, "all but the one that waits")
        states = await harness.stored("KV_plants-requests")
        run = await runs_of(harness).create(
            stage="cut", wanted=Wanted(), name="r1", downstream=True
        )
        await work(harness, run.name)
        assert len(await harness.stored(subject="plants.run.r1.grade")) == 4
        assert await harness.stored("KV_plants-requests") == states
        hold.set()
        assert await request.result(wait=60) == tuple(Grade(3, i) for i in range(3))
        again = await harness.client.get_request(done.id)
        assert again.answers == (Grade(1, 0),)


async def test_completion_cancel_and_deadline_race_and_one_is_the_end(nats: Settings) -> None:
    app = App("plants")
    pick = random.Random(5)

    @app.stage
    async def cut(photo: Photo) -> list[Leaf]:
        return [Leaf(photo.n, i) for i in range(photo.n % 5)]

    @app.stage
    async def grade(leaf: Leaf) -> Grade:
        await asyncio.sleep(pick.choice((0.0, 0.0, 0.05, 3600.0)) if leaf.n % 2 else 0.0)
        return Grade(leaf.n, leaf.i)

    app.endpoint("grade", Photo, answers=Grade, deadline="2s", keep="1h")
    ends: dict[str, set[bytes]] = {}

    def pushed(_subject: str, data: bytes, _header: bytes) -> None:
        state = states.decode(data)
        if not state.open:
            ends.setdefault(state.id, set()).add(data)

    async with Harness(app, nats) as harness, harness.worker(), harness.worker():
        core = harness.services.core
        assert core is not None

        async def one(n: int) -> mqinfer.Request[Grade]:
            request = await harness.client.request(Photo(n))
            if n % 3 == 0:
                await asyncio.sleep(pick.uniform(0.0, 0.1))
                await request.cancel()
            return await request.wait()

        async with core.listen("requests.plants.push.*.*.state", pushed):
            done = await asyncio.gather(*map(one, range(150)))
            await harness.services.broker.flush()
        assert len(ends) == 150
        assert all(len(found) == 1 for found in ends.values())
        # How many of each depends on how quick the machine is; that each is one does not.
        assert {request.status for request in done} <= {"succeeded", "canceled", "expired"}
        for n, request in enumerate(done):
            assert states.decode(next(iter(ends[request.id]))).status == request.status
            again = await harness.client.get_request(request.id)
            assert (again.status, again.answers) == (request.status, request.answers)
            if request.status == "succeeded":
                assert request.answers == truth(n)
            else:  # of what expired there may be some, in their order
                numbers = [one.i for one in request.answers]
                assert numbers == sorted(set(numbers))


async def test_batches_and_threads_pass_over_what_has_expired(nats: Settings) -> None:
    app = App("plants")
    seen: list[int] = []

    @app.stage(batch_size=10)
    async def cut(photos: list[Photo]) -> list[Leaf]:
        seen.extend(photo.n for photo in photos)
        return [Leaf(photo.n, 0) for photo in photos]

    @app.stage
    def grade(leaf: Leaf) -> Grade:
        seen.append(leaf.n)
        return Grade(leaf.n, leaf.i)

    app.endpoint("grade", Photo, answers=Grade, deadline="1s", keep="1h")
    async with Harness(app, nats) as harness:
        for n in range(3):
            assert (await harness.client.request(Photo(n))).status == "open"
        first = await harness.client.request(Photo(3), wait=60)
        assert first.status == "expired"
        await harness.publish(Photo(7))  # of no request
        await harness.drain()
        assert seen == [7, 7]
        assert await harness.dead() == []
