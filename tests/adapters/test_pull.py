"""ContinuousPull: what may still come is what its account says, whatever the server says."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mqinfer.adapters import pull as module
from mqinfer.adapters.jetstream import JetStream
from mqinfer.adapters.pull import (
    EVERYTHING,
    EXPIRES,
    HEARTBEAT,
    RETRY,
    SILENCE,
    ContinuousPull,
    StreamMessage,
)
from mqinfer.errors import ConflictError, MqinferError, Unavailable
from mqinfer.flow.publishing import publish_stored
from mqinfer.flow.slots import Slots
from mqinfer.identity import header_block
from mqinfer.ports import ConsumerSpec, StreamSpec
from mqinfer.settings import Settings
from mqinfer.testing import until

ACK = b"$JS.ACK.s.c.2.71.70.1700000000000000000.9"


class Wire:
    """A pull, what it wrote and released, and a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.written: list[bytes] = []
        self.messages: list[Any] = []
        self.released: list[tuple[int, int]] = []
        self.failures: list[MqinferError] = []
        self.recreated = 0
        self.pull = ContinuousPull(
            "_INBOX.x",
            "$JS.API.CONSUMER.MSG.NEXT.s.c",
            self.written.append,
            lambda: self.now,
            on_message=self.messages.append,
            on_released=lambda *gone: self.released.append(gone),
            recreate=self._recreate,
        )

    async def _recreate(self) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.recreated += 1

    def message(self, data: bytes = b"data", headers: bytes | None = None) -> None:
        self.pull.on_raw(b"s.x", ACK, data, headers)

    def status(self, text: str, token: int = 1, left: tuple[int, int] | None = None) -> None:
        block = f"NATS/1.0 {text}\r\n"
        if left is not None:
            block += f"Nats-Pending-Messages: {left[0]}\r\nNats-Pending-Bytes: {left[1]}\r\n"
        self.pull.on_raw(b"_INBOX.x.%d" % token, b"", b"", f"{block}\r\n".encode())


@pytest.fixture
def wire() -> Wire:
    return Wire()


@asynccontextmanager
async def running(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """`run` beside the test, which looks as often as it can."""
    monkeypatch.setattr(module, "RETRY", 0.0)
    task = asyncio.create_task(wire.pull.run())
    yield
    wire.pull.closed = True
    async with asyncio.timeout(120):
        await task


# --- what is asked for, and what comes ------------------------------------------------------------


def test_a_request_says_how_much_and_how_long(wire: Wire) -> None:
    wire.pull.request(5, 1_000)
    wire.pull.request(2, 500)
    tokens = []
    for data, (messages, size) in zip(wire.written, [(5, 1_000), (2, 500)], strict=True):
        line, body, end = data.split(b"\r\n")
        verb, subject, reply, length = line.split(b" ")
        assert (verb, subject, end) == (b"PUB", b"$JS.API.CONSUMER.MSG.NEXT.s.c", b"")
        assert int(length) == len(body)
        tokens.append(reply)
        assert json.loads(body) == {
            "batch": messages,
            "max_bytes": size,
            "expires": EXPIRES * 1e9,
            "idle_heartbeat": HEARTBEAT * 1e9,
        }
    assert tokens == [b"_INBOX.x.1", b"_INBOX.x.2"]


def test_a_message_says_where_it_stands(wire: Wire) -> None:
    block = header_block({"A": "b"})
    wire.pull.request(5, 10_000)
    wire.message(b"data", block)
    (message,) = wire.messages
    assert (message.stream, message.sequence, message.attempt) == ("s", 71, 2)
    assert (message.pending, message.published) == (9, 1700000000000000000)
    assert (message.subject, message.data, message.headers) == ("s.x", b"data", {"A": "b"})
    assert message.size == len(b"s.x") + len(ACK) + len(b"data") + len(block)


def test_a_message_of_another_account_or_domain_says_so_too() -> None:
    reply = b"$JS.ACK.hub.account.s.c.2.71.70.1700000000000000000.9.random"
    message = StreamMessage(b"s.x", reply, b"", None)
    assert (message.stream, message.sequence, message.attempt) == ("s", 71, 2)
    assert message.pending == 9
    assert message.headers == {}


def test_a_request_that_is_full_gives_its_bytes_back(wire: Wire) -> None:
    wire.pull.request(1, 1_000)
    wire.pull.request(1, 1_000)
    wire.message()
    size = wire.messages[0].size
    assert wire.released == [(0, 1_000 - size)]
    wire.message()
    assert wire.released[1:] == [(0, EVERYTHING)]


# --- statuses -------------------------------------------------------------------------------------


def test_a_request_that_ran_its_time_gives_back_what_it_did_not_bring(wire: Wire) -> None:
    wire.pull.request(5, 1_000)
    wire.pull.request(5, 1_000)
    wire.message()
    left = 1_000 - wire.messages[0].size
    wire.status("408 Request Timeout", 1, (4, left))
    assert wire.released == [(4, left)]
    assert not wire.pull.paused
    wire.status("408 Request Timeout", 2, (5, 1_000))
    assert wire.released[1:] == [(5, EVERYTHING)]


@pytest.mark.parametrize("text", ["409 Message Size Exceeds MaxBytes", "409 Batch Completed"])
def test_what_ends_in_order_is_asked_again_at_once(wire: Wire, text: str) -> None:
    wire.pull.request(5, 1_000)
    wire.status(text, 1, (5, 1_000))
    assert wire.released == [(5, EVERYTHING)]
    assert not wire.pull.paused


@pytest.mark.parametrize("text", ["409 Exceeded MaxWaiting", "404 No Messages", "400 Bad Request"])
def test_what_ends_badly_is_asked_again_a_little_later(wire: Wire, text: str) -> None:
    wire.pull.request(5, 1_000)
    wire.status(text)
    assert wire.released == [(5, EVERYTHING)]  # a status without a count brought nothing
    assert wire.pull.paused
    wire.now += RETRY
    assert not wire.pull.paused


@pytest.mark.parametrize("text", ["409 Server Shutdown", "409 Leadership Change"])
def test_a_server_that_goes_takes_all_requests_with_it(wire: Wire, text: str) -> None:
    wire.pull.request(5, 1_000)
    wire.pull.request(3, 1_000)
    wire.status(text, 1, (5, 1_000))
    assert sum(messages for messages, _ in wire.released) == 8
    assert wire.pull.resets == 1
    assert not wire.pull.paused


def test_a_heartbeat_ends_nothing(wire: Wire) -> None:
    wire.pull.request(5, 1_000)
    wire.status("100 Idle Heartbeat")
    assert wire.released == []


def test_the_status_of_a_request_that_is_forgotten_releases_nothing(wire: Wire) -> None:
    wire.pull.request(5, 1_000)
    wire.pull.reset("reconnected")
    assert wire.released == [(5, EVERYTHING)]
    wire.status("408 Request Timeout", 1)
    assert sum(messages for messages, _ in wire.released) == 5


# --- beside it ------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["409 Consumer Deleted", "503", "404 Consumer Not Found"])
async def test_a_consumer_that_is_gone_is_made_again(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    wire.pull.request(5, 1_000)
    wire.status(text)
    assert wire.pull.paused
    wire.failures = [Unavailable("NATS is away"), ConflictError("it cannot be")]
    async with running(wire, monkeypatch):
        await until(lambda: wire.recreated, "the consumer")
        await until(lambda: not wire.pull.paused, "the next request")
    assert wire.failures == []
    assert wire.recreated == 1
    assert wire.released[-1] == (0, 0)  # the runner is told to ask


async def test_silence_is_noticed_and_heartbeats_are_none(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire.pull.request(5, 1_000)
    async with running(wire, monkeypatch):
        for _ in range(3):
            wire.now += SILENCE
            await asyncio.sleep(0)
            wire.status("100 Idle Heartbeat")
            await asyncio.sleep(0)
        assert wire.pull.resets == 0
        wire.now += SILENCE + 0.1
        await until(lambda: wire.recreated, "a look at the consumer")
    assert wire.pull.resets == 1
    assert wire.released[0] == (5, EVERYTHING)


async def test_without_a_request_silence_is_no_matter(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(wire, monkeypatch):
        wire.now += 100 * SILENCE
        for _ in range(5):
            await asyncio.sleep(0)
        wire.pull.request(1, 1_000)  # which hears nothing yet, and has not waited yet
        for _ in range(5):
            await asyncio.sleep(0)
    assert (wire.pull.resets, wire.recreated) == (0, 0)


async def test_what_belongs_to_no_open_request_is_given_back_at_last(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server took it from the second request, and the end of the first is never heard."""
    wire.pull.request(1, 1_000)
    wire.pull.request(2, 1_000)
    wire.message()  # counted as the first request's, which then counts as full
    wire.status("408 Request Timeout", 2, (1, 900))
    assert sum(messages for messages, _ in wire.released) == 1
    async with running(wire, monkeypatch):
        wire.now += 2 * EXPIRES + 1
        await until(lambda: wire.released[-1] == (1, EVERYTHING), "the last message's place")
    assert sum(messages for messages, _ in wire.released) == 2
    assert "open=[]" in repr(wire.pull)


# --- the account ----------------------------------------------------------------------------------


class Server:
    """The requests of one consumer as nats-server keeps them: first come, first served."""

    def __init__(self) -> None:
        self.slots = Slots(20, 100_000, 1_000)
        self.open: dict[int, list[int]] = {}
        self.sequence = 0
        self.held: list[int] = []
        self.now = 0.0
        self.pull = ContinuousPull(
            "_INBOX.x",
            "$JS.API.CONSUMER.MSG.NEXT.s.c",
            self._written,
            lambda: self.now,
            on_message=self._arrived,
            on_released=self.slots.withdraw,
            recreate=self._recreate,
        )

    async def _recreate(self) -> None:
        return None

    def _written(self, data: bytes) -> None:
        line, body, _ = data.split(b"\r\n")
        token = int(line.split()[2].rpartition(b".")[2])
        asked = json.loads(body)
        self.open[token] = [asked["batch"], asked["max_bytes"]]

    def _arrived(self, delivery: Any) -> None:
        self.held.append(delivery.size)
        self.slots.arrive(delivery.size)

    def ask(self, number: int) -> None:
        """A part of what may be asked for, so that several requests are open."""
        if wanted := self.slots.available():
            part = (1 + number % min(wanted[0], 6), min(wanted[1], 1_000 + number))
            self.slots.ask(*part)
            self.pull.request(*part)

    def deliver(self, which: int, size: int) -> None:
        """A message for one of the requests; the server's order is its own."""
        token = list(self.open)[which % len(self.open)]
        self.sequence += 1
        reply = b"$JS.ACK.s.c.1.%d.%d.1700000000000000000.0" % (self.sequence, self.sequence)
        subject = b"s.x"
        # The server counts as we do: subject, reply, headers, payload.
        payload = b"x" * size
        left = self.open[token]
        total = len(subject) + len(reply) + len(payload)
        if total > left[1]:
            self.status(which, b"409 Message Size Exceeds MaxBytes")
            return
        left[0] -= 1
        left[1] -= total
        if not left[0]:
            del self.open[token]
        self.pull.on_raw(subject, reply, payload, None)

    def status(self, which: int, text: bytes) -> None:
        """A status for one of the requests; all but the heartbeat end it."""
        token = list(self.open)[which % len(self.open)]
        block = b"NATS/1.0 " + text
        if not text.startswith(b"100"):
            left = self.open.pop(token)
            block += b"\r\nNats-Pending-Messages: %d\r\nNats-Pending-Bytes: %d" % (*left,)
        self.pull.on_raw(b"_INBOX.x.%d" % token, b"", b"", block + b"\r\n\r\n")
        if b"Shutdown" in text or b"Leadership" in text:
            self.open.clear()


STATUSES = (
    b"100 Idle Heartbeat",
    b"408 Request Timeout",
    b"409 Batch Completed",
    b"409 Message Size Exceeds MaxBytes",
    b"409 Exceeded MaxWaiting",
    b"409 Consumer Deleted",
    b"409 Server Shutdown",
    b"409 Leadership Change",
    b"503",
)


STEPS = ("ask", "message", "message", "status", "release") * 9 + ("reset",)


@pytest.mark.parametrize("block", range(10))
def test_a_pull_keeps_account_with_the_server(block: int) -> None:
    """Long random walks: what goes wrong takes several requests that overlap."""
    for seed in range(100 * block, 100 * block + 100):
        rng = random.Random(seed)
        server = Server()
        slots = server.slots
        for _ in range(80):
            step, number = rng.choice(STEPS), rng.randrange(1_000)
            if step == "ask":
                server.ask(number)
            elif step == "message" and server.open:
                server.deliver(number, number % 900)
            elif step == "status" and server.open:
                server.status(number, rng.choice(STATUSES))
            elif step == "release" and server.held:
                slots.release(server.held.pop())
            elif step == "reset":  # the connection was lost, and with it the requests
                server.open.clear()
                server.pull.reset("reconnected")
            # What may still come is what the account says may come.
            assert slots.asked == sum(left[0] for left in server.open.values()), seed
            assert 0 <= slots.in_flight + slots.asked <= slots.max_messages, seed
        while server.open:
            server.status(0, b"408 Request Timeout")
        assert (slots.asked, slots.bytes_asked) == (0, 0), seed


def test_a_status_without_a_count_refuses_the_whole_request() -> None:
    server = Server()
    server.ask(3)
    server.ask(1)
    assert server.slots.asked == 6
    server.deliver(1, 10)  # believed to be the first request's
    del server.open[1]
    server.pull.on_raw(b"_INBOX.x.1", b"", b"", b"NATS/1.0 409 Exceeded MaxWaiting\r\n\r\n")
    assert server.slots.asked == 1
    server.deliver(0, 10)
    assert (server.slots.asked, server.slots.bytes_asked) == (0, 0)


# --- a real server --------------------------------------------------------------------------------


class Pulled:
    """A pull of a real consumer."""

    def __init__(self, broker: JetStream):
        self.broker = broker
        self.messages: list[bytes] = []
        self.released = 0
        self.made = 0

    def _arrived(self, delivery: Any) -> None:
        self.messages.append(delivery.data)
        self.broker.ack(delivery)

    def _released(self, messages: int, _size: int) -> None:
        self.released += messages

    async def _make(self) -> None:
        await self.broker.ensure_consumer(ConsumerSpec(name="c", stream="s", filters=("s.>",)))
        self.made += 1

    async def begin(self) -> Any:
        await self._make()
        return await self.broker.pull(
            "s",
            "c",
            on_message=self._arrived,
            on_released=self._released,
            recreate=self._make,
        )


async def test_a_consumer_that_an_operator_deletes_is_pulled_from_again(nats: Settings) -> None:
    async with JetStream(nats, name="test") as broker:
        await broker.ensure_stream(StreamSpec(name="s", subjects=("s.>",)))
        pulled = Pulled(broker)
        pull = await pulled.begin()
        pull.request(10, 100_000)
        await publish_stored(broker, "s.x", header_block({}), b"1")
        await until(lambda: pulled.messages == [b"1"], "the first message")

        await broker.client.api("$JS.API.CONSUMER.DELETE.s.c")
        await until(lambda: pulled.made == 2 and not pull.paused, "the consumer")
        assert pulled.released == 9
        await publish_stored(broker, "s.x", header_block({}), b"2")
        pull.request(10, 100_000)
        await until(lambda: pulled.messages[-1] == b"2", "the next message")
        await pull.close()


async def test_after_the_end_nothing_is_delivered_to_it(nats: Settings) -> None:
    async with JetStream(nats, name="test") as broker:
        await broker.ensure_stream(StreamSpec(name="s", subjects=("s.>",)))
        pulled = Pulled(broker)
        pull = await pulled.begin()
        pull.request(10, 100_000)
        await broker.flush()
        await pull.close()
        await publish_stored(broker, "s.x", header_block({}), b"1")
        await broker.flush()
        assert pulled.messages == []
        state = await broker.consumer_state("s", "c")
        assert state is not None
        # The server gave it to nobody, or would have to wait for ack_wait to give it to another.
        assert (state.waiting, state.unacknowledged) == (1, 0)
