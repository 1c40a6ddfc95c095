"""The library's way in: `mqinfer.connect`, and its old name."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

import mqinfer
from mqinfer import App, Context, Message, Settings
from mqinfer.identity import safe_id
from mqinfer.specs import ConsumerState
from mqinfer.testing import Harness


class Number(Message):
    value: int


class Leaf(Message, key="plant"):
    plant: str


app = App("clients")
seen: list[str] = []


@app.stage
async def see(number: Number) -> None: ...


@app.stage
async def look(leaf: Leaf, ctx: Context) -> None:
    seen.append(ctx.id)


async def test_a_client_publishes(nats: Settings) -> None:
    async with mqinfer.connect(app, nats) as client:
        assert await client.publish(Number(1), id="one") == "one"
    async with Harness(app, nats) as harness:
        assert await harness.messages(Number) == [Number(1)]


async def test_an_id_belongs_to_a_type(nats: Settings) -> None:
    async with Harness(app, nats) as harness:
        client, repeats = harness.client, list[str]()
        for message in (Number(1), Leaf("a"), Number(2), Leaf("b")):
            assert await client.publish(message, id="p1", on_repeat=repeats.append) == "p1"
        assert repeats == ["p1", "p1"]  # another key is not another type
        await client.publish_raw("clients.leaf.c", b"{}", id="p1", on_repeat=repeats.append)
        assert repeats == ["p1"] * 3
        assert await harness.messages(Number) == [Number(1)]
        assert await harness.messages(Leaf) == [Leaf("a")]


async def test_a_repeat_that_nobody_listens_for_is_logged(nats: Settings) -> None:
    async with Harness(app, nats) as harness:
        with capture_logs() as logs:
            await harness.publish(Number(1), Number(2), ids=["p1", "p2"])
            await harness.publish(Number(3), Number(4))
            assert not logs
            await harness.publish(Number(1), Number(5), ids=["p1", "p5"])
    assert [(line["log_level"], line["id"]) for line in logs] == [("warning", "p1")]


async def test_many_repeats_are_few_warnings_that_count_them(nats: Settings) -> None:
    with capture_logs() as logs:
        async with mqinfer.connect(app, nats) as client:
            for _ in range(2):
                await client.publish_all([Number(1)] * 300, ids=[f"r{i}" for i in range(300)])
    found = [line for line in logs if line["log_level"] == "warning"]
    assert sum(line.get("times", 1) for line in found) == 300
    assert len(found) < 300  # one at once, and one for each second


async def test_a_lag_is_no_nothing_where_the_server_that_counts_is_behind(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a cluster, where another server leads the consumer than the one that has the stream."""
    lagging = App("lagging")
    lagging.stage(see)
    async with Harness(lagging, nats) as harness:
        await harness.publish(Number(1))
        await harness.drain()
        broker = harness.services.broker
        before = await broker.consumer_state("lagging", "see")
        await harness.publish(Number(2))

        async def behind(_stream: str, _consumer: str) -> ConsumerState | None:
            return before

        monkeypatch.setattr(broker, "consumer_state", behind)
        assert await harness.client.lag("see") == 1
        monkeypatch.undo()
        await harness.drain()
        assert await harness.client.lag("see") == 0


async def test_a_handler_sees_the_id_that_publish_returned(nats: Settings) -> None:
    seen.clear()
    given = ["plain", "p:1", " a", "a", "a b", "a\nb", "ü", "x" * 300, "clients.leaf:p"]
    async with Harness(app, nats) as harness:
        ids = await harness.publish(*[Leaf("a") for _ in given], ids=given)
        assert ids == [safe_id(one) for one in given]
        await harness.drain("look")
    assert sorted(seen) == sorted(ids)
    assert len(set(ids)) == len(given)


async def test_the_old_name_says_what_to_write_instead(nats: Settings) -> None:
    with pytest.warns(DeprecationWarning, match=r"write mqinfer\.connect\(app\)"):
        connected = app.connect(nats)
    async with connected as client:
        await client.publish(Number(2))
    async with Harness(app, nats) as harness:
        assert await harness.messages(Number) == [Number(2)]
