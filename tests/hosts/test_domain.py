"""A leaf node's clients work on the hub's JetStream, in its domain, for all that an app uses."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import mqinfer
from mqinfer import App, Blob, Context, Message, State
from mqinfer.adapters.jetstream import JetStream
from mqinfer.domain import in_domain
from mqinfer.errors import ConfigurationError, Unavailable
from mqinfer.identity import RUN
from mqinfer.operate.permissions import permissions, requester
from mqinfer.ports import StreamSpec
from mqinfer.replay.runs import Wanted
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from tests.support.replay import runs_of, work

from .leaves import hub_and_leaf, reached

app = App("leaves")


class Photo(Message, key="plant", ordered=True):
    plant: str
    n: int
    picture: Blob


class Leaf(Message):
    plant: str
    n: int
    count: int
    size: int


class Due(Message):
    plant: str
    n: int


class Seen(State):
    count: int = 0


@app.stage(later=Due, ack_wait=5.0)
async def cut(photo: Photo, seen: Seen, ctx: Context) -> Leaf:
    seen.count += 1
    await ctx.later(Due(photo.plant, photo.n), after=0)
    return Leaf(photo.plant, photo.n, seen.count, len(await photo.picture.bytes()))


@app.stage(ack_wait=5.0)
async def due(message: Due) -> None:
    pass


app.endpoint("cut", Photo, answers=Leaf)


def photo(n: int, plant: str = "fern") -> Photo:
    return Photo(plant, n, Blob(b"%d" % n * 1000))


async def streams(settings: Settings) -> set[str]:
    """The names of all streams of a JetStream."""
    async with JetStream(settings, name="test") as broker:
        answer = await broker.client.api("$JS.API.STREAM.NAMES")
        return set(answer["streams"] or ())


async def test_an_app_works_in_the_domain_of_the_hub(tmp_path: Path) -> None:
    async with hub_and_leaf(tmp_path) as servers:
        async with Harness(app, servers.settings) as harness:
            async with harness.worker(), mqinfer.connect(app, servers.direct) as client:
                await harness.publish(*map(photo, range(20)))
                request = await client.request(photo(99, "moss"))  # somebody at the hub asks
                assert await request.result(wait=60) == (Leaf("moss", 99, 1, 2000),)

                async def all_done() -> bool:
                    return await harness.lag("cut") == 0 == await harness.lag("due")

                await until(all_done, "an answer for each")
                # Without the hub whoever is at the leaf node waits, and goes on.
                servers.hub.kill()
                waiting = [Due("moss", number) for number in range(20)]
                publishing = asyncio.create_task(harness.publish(*waiting))
                await until(lambda: harness.services.broker.blocked, "the publisher says why")
                await servers.hub.start()
                await servers.hub.wait_ready(60)
                await publishing
                await harness.publish(*map(photo, range(20, 40)))
                await until(all_done, "an answer for each", timeout=120)
            leaves = [leaf for leaf in await harness.messages(Leaf) if leaf.plant == "fern"]
            # Many are published at once: in the order in which their pictures were stored.
            assert sorted(leaf.n for leaf in leaves) == list(range(40))
            assert [leaf.count for leaf in leaves] == list(range(1, 41))

            async def all_due() -> bool:
                return len(await harness.messages(Due)) >= 61

            await until(all_due, "what was set for later")
            assert len(await harness.messages(Due)) == 61
            assert await harness.dead() == []
            await runs_of(harness).create(stage="cut", wanted=Wanted(), name="again")
            await work(harness, "again")
            answers = [m for m in await harness.stored() if m.headers.get(RUN) == "again"]
            assert len(answers) == 41
        assert await streams(servers.edge) == set()
        found = await streams(servers.direct)
        assert {"leaves", "KV_leaves-memory", "OBJ_leaves-blobs", "KV_leaves-requests"} <= found


async def test_an_answer_of_the_leaf_nodes_own_stream_does_not_count(tmp_path: Path) -> None:
    async with hub_and_leaf(tmp_path) as servers, Harness(app, servers.settings) as harness:
        async with JetStream(servers.edge, name="test") as broker:
            await broker.ensure_stream(StreamSpec("another", ("leaves.>",)))
            await harness.publish(Due("fern", 0))
            sent = await until(harness.stored, "the message is in the hub")
            assert len(sent) == 1
            servers.hub.kill()
            publishing = asyncio.create_task(harness.publish(Due("fern", 1)))

            async def came() -> bool:
                info = await broker.stream_info("another")
                return info is not None and info["state"]["messages"] == 2

            await until(came, "the leaf node's own stream took it")
            assert not publishing.done()
        await servers.hub.start()
        await servers.hub.wait_ready(60)
        await publishing
        assert len(await harness.stored()) == 2


async def test_a_user_of_the_leaf_node_with_the_least_permissions(tmp_path: Path) -> None:
    needed = permissions(app, blob_bucket="leaves-blobs", domain="hub")
    async with (
        hub_and_leaf(tmp_path, needed.config()) as servers,
        Harness(app, servers.direct) as admin,
    ):
        await admin.drain()  # makes consumers and buckets
        await admin.publish(*map(photo, range(5)))
        await until(lambda: reached(servers.settings, app.name), "the leaf node has joined the hub")
        async with Harness(app, servers.settings) as harness, harness.worker():

            async def answered() -> bool:
                return len(await admin.messages(Leaf)) == len(await admin.messages(Due)) == 5

            await until(answered, "an answer for each")
            assert not harness.services.broker.denied  # type: ignore[attr-defined]
        assert await admin.dead() == []


async def test_a_domain_that_is_not_there_is_named(nats: Settings) -> None:
    settings = Settings(nats_url=nats.nats_url, nats_domain="hubb")
    async with JetStream(settings, name="test") as broker:
        with pytest.raises(Unavailable, match=r"the domain hubb \(MQINFER_NATS_DOMAIN\)"):
            await broker.stream_info("leaves")


def test_what_is_written_with_a_domain() -> None:
    assert in_domain("$JS.API.STREAM.INFO.x", "hub") == "$JS.hub.API.STREAM.INFO.x"
    assert in_domain("$KV.b.k", "hub") == "$JS.hub.API.$KV.b.k"
    for subject in ("$O.b.C.x", "leaves.photo", "$JS.ACK.x.y.>", "requests.x"):
        assert in_domain(subject, "hub") == subject
    for subject in ("$JS.API.STREAM.INFO.x", "$KV.b.k"):
        assert in_domain(subject, None) == subject
    asking = requester(app, domain="hub").publish
    assert "$JS.hub.API.$KV.leaves-requests.cut.*" in asking
    assert not any(subject.startswith(("$JS.API", "$KV")) for subject in asking)
    with pytest.raises(ConfigurationError, match="MQINFER_NATS_DOMAIN"):
        Settings.load({"MQINFER_NATS_DOMAIN": "a.b"})
