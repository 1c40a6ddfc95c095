"""A request that one message answers whole is ended by its stage; all else by the tracker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mqinfer import App, Backoff, Context, Message
from mqinfer.adapters.bucket import JetStreamBucket
from mqinfer.completion import roots
from mqinfer.completion.progress import outputs_in
from mqinfer.requests import places
from mqinfer.requests import state as states
from mqinfer.requests.seen import Seen
from mqinfer.requests.state import State
from mqinfer.requests.stretches import stretches
from mqinfer.settings import Settings
from mqinfer.testing import Harness, nats_only, until


class Photo(Message):
    n: int


class Grade(Message):
    n: int


class Leaf(Message):
    n: int


class Known:
    """Requests whose states were given out to a worker, which keeps the first one of each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self._ids: set[str] = set()
        add = Seen.add

        def noted(seen: Seen, state: State, value: bytes, revision: int) -> None:
            if state.id not in self._ids:
                add(seen, state, value, revision)
            self._ids.add(state.id)

        monkeypatch.setattr(Seen, "add", noted)

    async def wait(self, ctx: Context) -> None:
        """Return once the state of the request that a message is was given out."""
        await until(lambda: places.asked_by(ctx.id) in self._ids, "the state to be given out")


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Known:
    return Known(monkeypatch)


async def records(harness: Harness) -> int:
    return len(await harness.stored(roots.stream(harness.app)))


async def state(harness: Harness) -> tuple[State, int]:
    (stored,) = await harness.stored("KV_plants-requests")
    return states.decode(stored.data), stored.sequence


async def settled(harness: Harness) -> bool:
    return await harness.lag("grade") == 0


async def test_one_message_that_answers_all_leaves_no_record(nats: Settings, known: Known) -> None:
    app = App("plants")

    @app.stage
    async def grade(photo: Photo, ctx: Context) -> list[Grade]:
        await known.wait(ctx)
        return [Grade(i) for i in range(photo.n)]

    app.endpoint("grade", Photo, answers=Grade)
    async with Harness(app, nats) as harness, harness.worker():
        for n in (0, 1, 3):
            request = await harness.client.request(Photo(n), wait=60)
            assert await request.result() == tuple(map(Grade, range(n)))
            assert request.status == "succeeded"
        assert await records(harness) == 0
        told = states.decode((await harness.stored("KV_plants-requests"))[-1].data)
        assert harness.services.streams is not None
        (found,) = await stretches(app, harness.services.streams, told)
        assert (found.stage, found.messages, found.settled, found.dead) == ("grade", 1, 1, 0)
        assert (found.began, found.ended) == (told.created, told.ended)


async def test_a_state_that_was_changed_meanwhile_is_the_trackers(
    nats: Settings, known: Known
) -> None:
    app, hold, held = App("plants"), asyncio.Event(), asyncio.Event()

    @app.stage
    async def grade(photo: Photo, ctx: Context) -> Grade:
        await known.wait(ctx)
        held.set()
        await hold.wait()
        return Grade(photo.n)

    app.endpoint("grade", Photo, answers=Grade)
    async with Harness(app, nats) as harness:
        request = await harness.client.request(Photo(1))
        async with harness.worker():
            await held.wait()
            before, revision = await state(harness)
            bucket = harness.services.broker.bucket(places.bucket(app))
            key = places.key_of(request.id)
            assert await bucket.save(key, states.encode(before), revision)
            hold.set()
            assert await request.result(wait=60) == (Grade(1),)
            assert await records(harness) == 1


async def test_what_an_attempt_left_before_it_failed_is_an_answer_too(
    nats: Settings, known: Known
) -> None:
    app, attempts = App("plants"), []

    @app.stage(backoff=Backoff(initial=0.01))
    async def grade(photo: Photo, ctx: Context) -> AsyncIterator[Grade]:
        await known.wait(ctx)
        attempts.append(ctx.attempt)
        yield Grade(0)
        if len(attempts) == 1:
            yield Grade(1)
            raise RuntimeError("once")

    app.endpoint("grade", Photo, answers=Grade)
    async with Harness(app, nats) as harness, harness.worker():
        request = await harness.client.request(Photo(1), wait=60)
        stored = tuple(await harness.messages(Grade))
        assert await request.result() == stored
        assert len(attempts) == 2
        assert await records(harness) > 0


async def test_more_outputs_than_are_told_are_no_success(tmp_path: Path, known: Known) -> None:
    app = App("plants")

    @app.stage
    async def grade(photo: Photo, ctx: Context) -> AsyncIterator[Leaf | Grade]:
        await known.wait(ctx)
        for i in range(photo.n):
            yield Leaf(i)
        yield Grade(photo.n)

    app.endpoint("grade", Photo, answers=Grade)
    async with (
        nats_only(tmp_path, nats_max_payload=32 * 1024) as settings,
        Harness(app, settings) as harness,
        harness.worker(),
    ):
        most = outputs_in(harness.services.broker.max_payload)
        few = await harness.client.request(Photo(most - 1), wait=60)
        assert await few.result() == (Grade(most - 1),)
        many = await harness.client.request(Photo(most + 5), wait=60)
        assert many.status == "failed"


async def test_who_dies_before_it_hears_that_the_request_has_ended(
    nats: Settings, known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, sent = App("plants"), []

    @app.stage
    async def grade(photo: Photo, ctx: Context) -> Grade:
        if not sent:
            await known.wait(ctx)
        return Grade(photo.n)

    app.endpoint("grade", Photo, answers=Grade)
    put = JetStreamBucket.put

    def unheard(
        self: JetStreamBucket, key: str, value: bytes, revision: int, done: Any, **ttl: Any
    ) -> None:
        def never(*_: object) -> None:
            """The process ends."""

        put(self, key, value, revision, never, **ttl)
        sent.append(key)

    async with Harness(app, replace(nats, grace=0.5)) as harness:
        request = await harness.client.request(Photo(7))
        with monkeypatch.context() as patch:
            patch.setattr(JetStreamBucket, "put", unheard)
            async with harness.worker():
                assert await request.result(wait=60) == (Grade(7),)
                assert sent
                ended = await state(harness)
                assert not await settled(harness)
        async with harness.worker():
            await until(lambda: settled(harness), "the message to be acknowledged")
            await until(lambda: _equals(records, harness, 1), "its record")
            assert await harness.messages(Grade) == [Grade(7)]
            assert await state(harness) == ended


async def _equals(number: Callable[[Harness], Any], harness: Harness, wanted: int) -> bool:
    return bool(await number(harness) == wanted)
