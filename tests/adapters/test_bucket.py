"""JetStreamBucket on a real server: conditions hold, whatever is lost on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mqinfer.adapters import bucket as module
from mqinfer.adapters.jetstream import JetStream
from mqinfer.bucket import Bucket, change
from mqinfer.errors import PublishError, Unavailable
from mqinfer.settings import Settings
from mqinfer.testing import until


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[JetStream]:
    async with JetStream(settings, name="test") as broker:
        yield broker


async def config(broker: JetStream, name: str) -> Any:
    info = await broker.stream_info(f"KV_{name}")
    assert info is not None
    return info["config"]


async def test_values_change_under_their_condition_alone(nats: Settings) -> None:
    async with connected(nats) as broker:
        bucket: Bucket = broker.bucket("b")
        assert await bucket.load("a") is None  # not even a bucket
        assert await bucket.names() == []
        await bucket.ensure()
        assert await bucket.load("a") is None

        assert await bucket.save("a", b"one", 0)
        assert not await bucket.save("a", b"two", 0)
        found = await bucket.load("a")
        assert found is not None
        value, revision = found
        assert value == b"one"
        assert await bucket.save("a", b"two", revision)
        assert not await bucket.delete("a", revision)
        # The same value again is no proof that it was we who wrote it.
        assert not await bucket.save("a", b"two", revision)

        found = await bucket.load("a")
        assert found is not None
        assert await bucket.delete("a", found[1])
        deleted = await bucket.load("a")
        assert deleted is not None
        assert deleted[0] == b""
        assert deleted[1] > found[1]
        await bucket.save("b.c", b"", 0)
        assert await bucket.names() == ["a", "b.c"]


async def test_a_bucket_that_is_there_stays_as_it_is(nats: Settings) -> None:
    async with connected(nats) as broker:
        bucket = broker.bucket("b", max_age=600.0)
        await bucket.ensure()
        has = await config(broker, "b")
        assert has["max_age"] == 600 * 10**9
        changed = {**has, "description": "of an operator", "max_bytes": 1_000_000}
        await broker.client.api("$JS.API.STREAM.UPDATE.KV_b", changed)
        await broker.bucket("b", max_age=5.0).ensure()
        has = await config(broker, "b")
        assert (has["description"], has["max_bytes"]) == ("of an operator", 1_000_000)
        assert has["max_age"] == 600 * 10**9


async def test_many_who_count_at_once_lose_nothing(nats: Settings) -> None:
    def one_more(value: bytes | None) -> bytes:
        return b"%d" % (int(value or b"0") + 1)

    async with connected(nats) as one, connected(nats) as other:
        buckets = [one.bucket("b"), other.bucket("b")]
        await buckets[0].ensure()
        for _ in range(10):
            await asyncio.gather(
                *(change(bucket, "n", one_more, what="n") for bucket in buckets for _ in range(2))
            )
        found = await buckets[0].load("n")
        assert found is not None
        assert found[0] == b"40"


async def test_a_copy_that_is_sent_again_is_no_refusal(nats: Settings) -> None:
    async with connected(nats) as broker:
        bucket = broker.bucket("b")
        await bucket.ensure()
        heard = broker.publisher.on_ack
        lost: list[bytes] = []

        def lose_one(subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
            if lost:
                heard(subject, reply, data, headers)
            else:
                lost.append(data)
                broker.publisher.on_reconnect()  # sends again what was not acknowledged

        listen_with(broker, lose_one)
        assert await bucket.save("a", b"one", 0)
        assert lost
        assert broker.publisher.resent == 1


async def test_an_answer_that_never_comes(nats: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there then says whether the value was set, and by whom."""
    monkeypatch.setattr(module, "_TIMEOUT", 0.3)
    async with connected(nats) as broker, connected(nats) as other:
        bucket, others = broker.bucket("b"), other.bucket("b")
        await bucket.ensure()
        listen_with(broker, lambda *_: None)
        assert await bucket.save("a", b"one", 0)
        first = await others.load("a")
        assert first is not None
        assert first[0] == b"one"

        assert await others.save("a", b"two", first[1])
        # It is the other's, though it looks like ours.
        assert not await bucket.save("a", b"two", first[1])

        second = await others.load("a")
        assert second is not None
        monkeypatch.setattr(broker.publisher, "_write", lambda _data: None)  # nothing leaves
        with pytest.raises(Unavailable, match="a in bucket b"):
            await bucket.save("a", b"three", second[1])
        assert await others.load("a") == second


async def test_a_value_that_the_server_does_not_take_is_an_error(nats: Settings) -> None:
    async with connected(nats) as broker:
        bucket = broker.bucket("b")
        await bucket.ensure()
        with pytest.raises(PublishError, match="the server takes"):
            await bucket.save("a", bytes(broker.max_payload), 0)


def listen_with(broker: JetStream, handler: Any) -> None:
    """Let `handler` hear the acknowledgements of publishes."""
    direct = broker.client._direct
    (number,) = direct
    direct[number] = handler


async def test_put_tells_the_revision_or_that_another_was_quicker(nats: Settings) -> None:
    async with connected(nats) as broker:
        bucket = broker.bucket("b", ttls=True)
        await bucket.ensure()

        async def put(
            key: str, value: bytes, revision: int, ttl: float | None = None
        ) -> tuple[int | None, Exception | None]:
            ended = asyncio.get_running_loop().create_future()
            bucket.put(key, value, revision, lambda *end: ended.set_result(end), ttl=ttl)
            found: tuple[int | None, Exception | None] = await ended
            return found

        revision, error = await put("a", b"one", 0)
        assert (revision, error) == (1, None)
        assert await put("a", b"two", 0) == (None, None)
        assert await put("a", b"two", 1) == (2, None)
        assert await bucket.load("a") == (b"two", 2)
        revision, error = await put("a", bytes(broker.max_payload), 2)
        assert revision is None
        assert isinstance(error, PublishError)
        assert await put("short", b"one", 0, ttl=1.0) == (3, None)

        async def gone() -> bool:
            return await bucket.load("short") is None

        await until(gone, "the end of the value")
        assert await put("short", b"two", 0, ttl=1.0) == (4, None)
        # An answer that is lost: the copy that is sent again is refused, and reading tells why.
        heard = broker.publisher.on_ack
        lost: list[bytes] = []

        def lose_one(subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
            if lost:
                heard(subject, reply, data, headers)
            else:
                lost.append(data)
                broker.publisher.on_reconnect()

        listen_with(broker, lose_one)
        assert await put("a", b"three", 2) == (None, None)
        found = await bucket.load("a")
        assert found is not None
        assert found[0] == b"three"
