"""How requests end otherwise: canceled, expired, forgotten; and what becomes of the work."""

from __future__ import annotations

import asyncio

import pytest

from mqinfer import App, Context, Message
from mqinfer.errors import RequestCanceled, RequestExpired, RequestUnknown
from mqinfer.requests import state as states
from mqinfer.requests.places import TASK
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until


class Photo(Message):
    n: int


class Leaf(Message):
    i: int


class Grade(Message):
    i: int


class Slow:
    """An app whose second stage hangs at leaf 1 until it is cancelled, and notes what it saw."""

    def __init__(self, **options: str) -> None:
        self.app = App("plants")
        self.seen: list[int] = []
        self.cancelled = 0

        @self.app.stage
        async def cut(photo: Photo) -> list[Leaf]:
            return [Leaf(i) for i in range(photo.n)]

        @self.app.stage
        async def grade(leaf: Leaf) -> Grade:
            self.seen.append(leaf.i)
            if leaf.i == 1:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    self.cancelled += 1
                    raise
            return Grade(leaf.i)

        self.app.endpoint("grade", Photo, answers=Grade, **options)


async def test_a_cancelled_request_is_not_worked_on_any_more(nats: Settings) -> None:
    slow = Slow()
    async with Harness(slow.app, nats) as harness, harness.worker():
        client = harness.client
        request = await client.request(Photo(2))
        other = await client.get_request(request.id)
        await until(lambda: 1 in slow.seen, "work on it")

        async def graded() -> bool:
            return await request.progress() == (2, 1)

        await until(graded, "all but one to be done")
        facts = await request.facts()
        assert facts["progress"] == {"settled": 2, "open": 1}
        waiting = asyncio.create_task(other.result(wait=60))
        await asyncio.sleep(0)
        assert await request.cancel()
        with pytest.raises(RequestCanceled):
            await waiting
        await until(lambda: slow.cancelled == 1, "the coroutine to be cancelled")
        assert not slow.seen[2:]
        assert await other.cancel()  # it is

        async def settled() -> bool:
            return await harness.lag("grade") == 0

        await until(settled, "the message to be acknowledged")
        assert await harness.dead() == []
        assert (await client.get_request(request.id)).status == "canceled"


async def test_what_waits_is_passed_over(nats: Settings) -> None:
    slow = Slow()
    async with Harness(slow.app, nats) as harness:
        request = await harness.client.request(Photo(3))
        async with harness.worker("grade"):
            assert await request.cancel()
            await harness.drain("cut")

            async def settled() -> bool:
                return await harness.lag("grade") == 0 and len(await harness.messages(Leaf)) == 3

            await until(settled, "the leaves to be passed over")
        assert slow.seen == []


async def test_a_request_ends_at_its_deadline_with_what_there_is(nats: Settings) -> None:
    slow = Slow(deadline="3s", keep="1h")
    async with Harness(slow.app, nats) as harness, harness.worker():
        request = await harness.client.request(Photo(3), wait=60)
        assert request.status == "expired"
        assert set(request.answers) <= {Grade(0), Grade(2)}
        with pytest.raises(RequestExpired):
            await request.result()
        # On a busy machine it may not have begun by then.
        begun = slow.seen.count(1)
        await until(lambda: slow.cancelled == begun, "the coroutine to be cancelled")

        async def settled() -> bool:
            return await harness.lag("grade") == 0

        await until(settled, "the message to be acknowledged")
        assert await harness.dead() == []
        seen = len(slow.seen)
        # What was published with a deadline that has passed is not handled.
        assert (await harness.client.get_request(request.id)).status == "expired"
        assert len(slow.seen) == seen


async def test_a_deadline_needs_no_worker_of_the_stages_and_no_reader(nats: Settings) -> None:
    slow = Slow(deadline="1s", keep="1h")
    async with Harness(slow.app, nats) as harness:
        await harness.client.request(Photo(1))
        async with harness.worker(TASK + "grade"):

            async def expired() -> bool:
                (stored,) = await harness.stored("KV_plants-requests")
                return states.decode(stored.data).status == "expired"

            await until(expired, "its end")
        assert slow.seen == []


async def test_a_join_below_a_canceled_request_is_told_what_it_lacks(nats: Settings) -> None:
    slow = Slow()
    told: list[tuple[int, list[str]]] = []

    @slow.app.join(Photo, of=Grade)
    async def report(photo: Photo, grades: list[Grade], ctx: Context) -> None:
        told.append((len(grades), [one.kind for one in ctx.died]))

    async with Harness(slow.app, nats) as harness, harness.worker():
        request = await harness.client.request(Photo(2))
        await until(lambda: len(slow.seen) == 2, "work on both leaves")

        async def graded() -> bool:
            return await request.progress() == (2, 2)

        await until(graded, "one grade, beside the leaf and the join")
        assert await request.cancel()
        await until(lambda: slow.cancelled == 1, "the coroutine to be cancelled")

        async def settled() -> bool:
            return await harness.lag("report") == 0 and bool(
                await harness.stored(subject="plants.joined.report")
            )

        await until(settled, "the join to be told")
        assert told == []  # this worker knows that nobody waits
        (joined,) = await harness.messages(slow.app.stages["report"].reads)
        assert [one.kind for one in joined.died] == ["canceled"]  # type: ignore[attr-defined]
        assert len(joined.outputs) == 1  # type: ignore[attr-defined]


async def test_whoever_reads_ends_what_no_worker_does(nats: Settings) -> None:
    slow = Slow(deadline="100ms", keep="1h")
    async with Harness(slow.app, nats) as harness:
        request = await harness.client.request(Photo(1), wait=60)
        assert request.status == "expired"
        await harness.drain()  # the message is still there, and nobody wants it
        assert slow.seen == []
        assert (await harness.client.get_request(request.id)).status == "expired"


def grading(deadline: str) -> App:
    app = App("plants")

    @app.stage
    async def grade(photo: Photo) -> list[Grade]:
        return [Grade(i) for i in range(photo.n)]

    app.endpoint("grade", Photo, answers=Grade, deadline=deadline, keep="3s")
    return app


async def test_a_request_is_forgotten(nats: Settings) -> None:
    async with Harness(grading("1m"), nats) as harness, harness.worker():
        request = await harness.client.request(Photo(2), key="k", wait=60)
        assert request.status == "succeeded"

        async def forgotten() -> bool:
            try:
                await harness.client.get_request(request.id)
            except RequestUnknown as error:
                return "forgotten" in str(error)
            return False

        await until(forgotten, "nobody to find it")
        again = await harness.client.request(Photo(1), key="k", wait=60)
        assert (again.id, again.replayed) == (request.id, False)
        assert again.answers == (Grade(0),)


async def test_the_server_drops_what_is_forgotten(nats: Settings) -> None:
    async with Harness(grading("1s"), nats) as harness:
        request = await harness.client.request(Photo(2))
        assert len(await harness.stored("KV_plants-requests")) == 1

        async def dropped() -> bool:
            return not await harness.stored("KV_plants-requests")

        await until(dropped, "the server to drop it")
        with pytest.raises(RequestUnknown, match="forgotten"):
            await harness.client.get_request(request.id)


async def test_events_come_in_order_each_once_and_can_be_resumed(nats: Settings) -> None:
    app = App("plants")
    gates = {i: asyncio.Event() for i in range(4)}

    @app.stage
    async def cut(photo: Photo) -> list[Leaf]:
        return [Leaf(i) for i in range(photo.n)]

    @app.stage
    async def grade(leaf: Leaf, ctx: Context) -> Grade:
        await gates[leaf.i].wait()
        return Grade(leaf.i)

    app.endpoint("grade", Photo, answers=Grade)
    async with Harness(app, nats) as harness, harness.worker():
        request = await harness.client.request(Photo(4))
        found = []
        async with asyncio.timeout(120):
            async for event in request:
                found.append(event)
                if event.kind == "progress" and event.settled - 1 in gates:
                    gates[event.settled - 1].set()
        assert [one.answer for one in found if one.kind == "answer"] == [Grade(i) for i in range(4)]
        progress = [(one.settled, one.open) for one in found if one.kind == "progress"]
        assert progress == [(1, 4), (2, 3), (3, 2), (4, 1)]
        assert found[-1].kind == "end"
        assert request.status == "succeeded"

        again = await harness.client.get_request(request.id)
        middle = found[len(found) // 2].number
        rest = [one async for one in again.events(after=middle)]
        assert rest == [one for one in found if one.number > middle or one.kind == "end"]
