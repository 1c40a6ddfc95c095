"""Requests on a real nats-server: who asks is told what came of it, whatever that is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mqinfer import App, Context, Message, Reject
from mqinfer.backoff import Backoff
from mqinfer.completion.waited import TRACKER
from mqinfer.errors import (
    ConfigurationError,
    DecodeError,
    PayloadTooLarge,
    RequestConflict,
    RequestFailed,
    RequestInvalid,
    RequestPending,
    RequestRejected,
    RequestUnknown,
)
from mqinfer.identity import DEADLINE, IDENTITY, MSG_ID, ROOTS
from mqinfer.settings import Settings
from mqinfer.testing import Harness

SOON = Backoff(initial=0.01, maximum=0.05)


class Photo(Message):
    n: int


class Leaf(Message):
    photo: int
    i: int


class Grade(Message):
    photo: int
    i: int
    by: str = "grade"


def pipeline(**options: Any) -> App:
    """Photo -> leaves -> a grade each; the fourth leaf is rejected, the fifth fails once."""
    app = App("plants")

    @app.stage
    async def cut(photo: Photo) -> list[Leaf]:
        if photo.n < 0:
            raise Reject("no such number of leaves")
        return [Leaf(photo.n, i) for i in range(photo.n)]

    @app.stage(backoff=SOON, attempts=2)
    async def grade(leaf: Leaf, ctx: Context) -> Grade:
        if leaf.i == 3:
            raise Reject("too dark")
        if leaf.i == 4 and ctx.attempt == 1:
            raise ValueError("once")
        if leaf.i == 60:
            raise ValueError("a secret")
        return Grade(leaf.photo, leaf.i)

    app.endpoint("grade", Photo, answers=Grade, **options)
    return app


async def test_whoever_asks_is_told_what_came_of_it(nats: Settings) -> None:
    async with Harness(pipeline(), nats) as harness, harness.worker():
        client = harness.client
        request = await client.request(Photo(3), wait=30)
        assert request.status == "succeeded"
        assert request.answers == (Grade(3, 0), Grade(3, 1), Grade(3, 2))
        assert await request.result() == request.answers
        assert request.errors == ()
        again = await client.get_request(request.id)
        assert (again.status, again.answers) == (request.status, request.answers)

        nothing = await client.request(Photo(0), wait=30)
        assert (nothing.status, nothing.answers) == ("succeeded", ())

        partial = await client.request(Photo(6), wait=30)
        assert partial.status == "partial"
        assert [one.i for one in await partial.result()] == [0, 1, 2, 4, 5]
        assert [(type(one), str(one)) for one in partial.errors] == [(RequestRejected, "too dark")]

        rejected = await client.request(Photo(-1), wait=30)
        assert rejected.status == "failed"
        with pytest.raises(RequestRejected, match=r"^no such number of leaves$"):
            await rejected.result()


async def test_what_is_nobodys_outside_stays_inside(nats: Settings) -> None:
    app = App("plants")

    @app.stage(backoff=SOON, attempts=1)
    async def grade(photo: Photo) -> Grade:
        raise ValueError("a secret")

    app.endpoint("grade", Photo, answers=Grade)
    async with Harness(app, nats) as harness, harness.worker():
        request = await harness.client.request(Photo(1), wait=30)
        assert request.status == "failed"
        with pytest.raises(RequestFailed) as caught:
            await request.result()
        assert "secret" not in str(caught.value)
        (letter,) = await harness.dead()
        assert caught.value.letter == f"grade/{letter.headers[IDENTITY]}"


async def test_the_same_key_is_the_same_request(nats: Settings) -> None:
    async with Harness(pipeline(), nats) as harness:
        client = harness.client
        first = await client.request(Photo(1), key="order 17")
        assert (first.status, first.replayed) == ("open", False)
        with pytest.raises(RequestPending):
            await first.result(wait=0.01)
        again = await client.request(Photo(1), key="order 17")
        assert (again.id, again.replayed) == (first.id, True)
        with pytest.raises(RequestConflict, match="order 17"):
            await client.request(Photo(2), key="order 17")
        others = await client.request(Photo(1), key="order 17", tenant="another")
        assert others.id != first.id
        with pytest.raises(RequestUnknown):
            await client.get_request(others.id)
        with pytest.raises(RequestUnknown):
            await client.get_request("grade-" + "0" * 32)
        with pytest.raises(RequestUnknown):
            await client.get_request("nonsense")
        assert len(await harness.stored(subject="plants.photo")) == 2
        await harness.drain()
        assert (await first.result(wait=30)) == (Grade(1, 0),)
        assert len(await harness.messages(Grade)) == 2


async def test_joins_answer_too_also_of_the_very_message_that_was_asked(nats: Settings) -> None:
    app = pipeline()

    class Report(Message):
        n: int
        grades: int
        died: list[str]

    class Summary(Message):
        text: str

    @app.join(Photo, of=Grade)
    async def report(photo: Photo, grades: list[Grade], ctx: Context) -> Report:
        return Report(photo.n, len(grades), [one.reason for one in ctx.died])

    @app.stage
    async def summarize(report: Report) -> Summary:
        return Summary(f"{report.grades} of {report.n}")

    app.endpoint("report", Photo, answers=(Report, Summary))
    async with Harness(app, nats) as harness, harness.worker():
        request = await harness.client.request(Photo(5), endpoint="report", wait=30)
        assert request.status == "partial"
        # In the order of their causes: what the join writes, and what comes of that.
        assert request.answers == (Report(5, 4, ["too dark"]), Summary("4 of 5"))
        named = await harness.client.request(Photo(1), endpoint=app.endpoints["grade"], wait=30)
        assert (named.endpoint, named.answers) == ("grade", (Grade(1, 0),))
        with pytest.raises(ConfigurationError, match="grade \\(Photo\\), report \\(Photo\\)"):
            await harness.client.request(Photo(1))


async def test_large_answers_are_in_the_blob_store(nats: Settings) -> None:
    app = App("plants")

    class Text(Message, wire="msgpack"):
        text: str

    @app.stage
    async def write(photo: Photo) -> list[Text]:
        return [Text(str(i) * 100_000) for i in range(photo.n)]

    app.endpoint("write", Photo, answers=Text)
    async with Harness(app, nats) as harness, harness.worker():
        request = await harness.client.request(Photo(3), wait=30)
        assert await request.result() == tuple(Text(str(i) * 100_000) for i in range(3))
        found = await harness.client.get_request(request.id)
        assert found.answers == request.answers
        (state,) = await harness.stored("KV_plants-requests")
        assert len(state.data) < 1_000
        told = [event.answer async for event in found if event.kind == "answer"]
        assert tuple(told) == request.answers


async def test_asked_at_once_under_one_key_it_is_one_request(nats: Settings) -> None:
    async with Harness(pipeline(), nats) as harness:
        client = harness.client
        asked = await asyncio.gather(*(client.request(Photo(2), key="k") for _ in range(20)))
        assert len({one.id for one in asked}) == 1
        assert [one.replayed for one in asked].count(False) == 1
        assert len(await harness.stored(subject="plants.photo")) == 1
        await harness.drain()
        found = await asyncio.gather(*(one.result(wait=60) for one in asked))
        assert found == [(Grade(2, 0), Grade(2, 1))] * 20
        assert len(await harness.messages(Grade)) == 2


async def test_what_comes_of_no_request_has_no_header_and_no_record(nats: Settings) -> None:
    async with Harness(pipeline(), nats) as harness:
        await harness.publish(Photo(2))
        await harness.drain()
        assert len(await harness.messages(Grade)) == 2
        assert await harness.stored("plants-settled") == []
        assert all(ROOTS not in one.headers for one in await harness.stored())


async def test_a_strangers_copy_of_the_headers_holds_up_nothing(nats: Settings) -> None:
    async with Harness(pipeline(), nats) as harness:
        token = "ab" * 16
        for identity in (f"nobody {token}", f"grade-{'0' * 32}:{token}@2026-05-27", f"a:{token}"):
            headers = {ROOTS: f"request..grade/{token}", IDENTITY: identity}
            headers |= {MSG_ID: identity, DEADLINE: "nan"}
            await harness.publish_bytes("plants.photo", b'{"n": 2}', headers)
        await harness.drain()
        assert await harness.lag(TRACKER) == 0
        assert await harness.stored("KV_plants-requests") == []
        async with harness.worker():
            request = await harness.client.request(Photo(1), wait=60)
            assert request.answers == (Grade(1, 0),)


async def test_what_is_no_json_or_too_large_is_not_accepted(nats: Settings) -> None:
    async with Harness(pipeline(), nats) as harness:
        requests = await harness.client.requests()
        with pytest.raises(DecodeError, match="this is no JSON"):
            await requests.accept("grade", "plants.photo", b'{"n": ', "application/json")
        large = b"x" * harness.services.broker.max_payload
        with pytest.raises(PayloadTooLarge, match="carry what is large as a Blob"):
            await requests.accept("grade", "plants.photo", large, "application/msgpack")
        with pytest.raises(ConfigurationError, match="no endpoint 'other'; it has grade"):
            await requests.accept("other", "plants.photo", b"{}", "application/json")
        assert await harness.stored("KV_plants-requests") == []
        # What is no message of its type is accepted, and is an answer of its own.
        odd = await requests.accept("grade", "plants.photo", b'{"n": "x"}', "application/json")
        await harness.drain()
        request = await harness.client.get_request(odd.state.id)
        with pytest.raises(RequestInvalid, match="Expected `int`, got `str`"):
            await request.result(wait=60)
