"""JetStream as the `Broker` of the ports: one connection, its publisher, its pulls."""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any

import structlog

from mqinfer.adapters import admin
from mqinfer.adapters.bucket import JetStreamBucket
from mqinfer.adapters.confirm import Confirmer
from mqinfer.adapters.firstconnection import open_client
from mqinfer.adapters.line import Line
from mqinfer.adapters.natsclient import LeanClient, Subscription
from mqinfer.adapters.publisher import Publisher
from mqinfer.adapters.pull import ContinuousPull
from mqinfer.domain import in_domain
from mqinfer.errors import MqinferError, PermissionDenied, Unavailable
from mqinfer.flow.availability import Availability
from mqinfer.ports import (
    ConsumerSpec,
    ConsumerState,
    Delivery,
    PublishDone,
    StreamSpec,
)

if TYPE_CHECKING:
    from mqinfer.settings import Settings

log = structlog.get_logger("mqinfer.jetstream")

FLUSH_TIMEOUT = 10.0


class JetStream:
    """One connection to NATS; an async context manager.

    Args:
        settings: addresses and credentials.
        name: of the connection, as `nats server report connections` shows it.
    """

    def __init__(self, settings: Settings, *, name: str):
        self._settings = settings
        self._domain = settings.nats_domain
        self._name = name
        self._client: LeanClient | None = None
        self._availability = Availability("nats")
        self._publisher: Publisher | None = None
        self._pulls: set[ContinuousPull] = set()
        self._confirmer = Confirmer(self.flush, self._again)
        self._beside: list[asyncio.Task[None]] = []
        self._renewals: set[asyncio.Task[None]] = set()
        self._closing = False
        self._closed = asyncio.Event()
        # Subjects that the server denied to these credentials, newest last.
        self.denied: list[str] = []

    async def __aenter__(self) -> JetStream:
        """Connect.

        Raises:
            Unavailable: nobody answers.
            PermissionDenied: the credentials are refused.
        """
        self._client = client = await open_client(
            self._settings,
            name=self._name,
            on_disconnect=self._on_disconnect,
            on_reconnect=self._on_reconnect,
            on_closed=self._on_closed,
            on_denied=self._on_denied,
        )
        try:
            await self._subscribe(client)
        except BaseException:
            await self.close()
            raise
        return self

    async def _subscribe(self, client: LeanClient) -> None:
        inbox = client.new_inbox()
        self._publisher = Publisher(
            inbox, client.write, client.connected, time.monotonic, self._domain
        )
        self._publisher.max_payload = client.max_payload
        await client.subscribe_direct(f"{inbox}.*", self._publisher.on_ack)
        await self.flush()  # a denied subscription is told before the answer to the ping
        if self.denied:
            raise PermissionDenied(
                f"NATS: {self.denied[-1]}; a worker must subscribe below its inbox prefix "
                "(MQINFER_NATS_INBOX_PREFIX)"
            )
        self._watch(self._publisher.run(), "publisher")

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connection."""
        await self.close()

    @property
    def client(self) -> LeanClient:
        """The connection.

        Raises:
            Unavailable: it was not opened.
        """
        if self._client is None:
            raise Unavailable("not connected to NATS yet")
        return self._client

    @property
    def publisher(self) -> Publisher:
        """Publishes in flight."""
        assert self._publisher is not None, "used before `async with`"
        return self._publisher

    def _watch(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start a task beside the connection; if it dies, the connection counts as lost."""

        def ended(task: asyncio.Task[None]) -> None:
            if task.cancelled() or (error := task.exception()) is None:
                return
            log.error("a task beside the connection died", task=name, exc_info=error)
            self._availability.down(f"mqinfer failed inside: {error!r}")
            self._closed.set()

        task = asyncio.create_task(work, name=name)
        task.add_done_callback(ended)
        self._beside.append(task)
        return task

    # --- state of the connection ----------------------------------------------------------------

    def _on_disconnect(self) -> None:
        self._confirmer.lost()
        if not self._closing:
            self._availability.down("the connection is lost")

    def _on_reconnect(self) -> None:
        assert self._client is not None
        self.publisher.max_payload = self._client.max_payload
        self._availability.up()
        self._confirmer.lost()
        for pull in self._pulls:
            pull.reset("reconnected")
        self.publisher.on_reconnect()
        for again in tuple(self._client.renewed):
            again()

    def _on_closed(self) -> None:
        self._closed.set()
        # Before the first connection is made, its error says what is wrong.
        if self._client is not None and not self._closing:
            reason = f"the server closed the connection for good: {self.client.last_error}"
            self._availability.down(reason)
            log.error("connection closed", reason=reason)

    def _on_denied(self, text: str) -> None:
        self.denied = [*self.denied[-9:], text]
        if self._publisher is not None:
            self._publisher.on_denied(text)

    @property
    def max_payload(self) -> int:
        """The most bytes that payload and headers of one message may have together."""
        return self.publisher.max_payload

    @property
    def blocked(self) -> str | None:
        """Why nothing can be pulled or published now, or None."""
        return self._availability.blocked or self.publisher.trouble

    async def lost(self) -> None:
        """Return when the connection is closed for good, which only a restart mends."""
        await self._closed.wait()

    # --- streams and consumers ------------------------------------------------------------------

    async def ensure_stream(self, spec: StreamSpec) -> None:
        """Create or change the stream; see `Broker.ensure_stream`."""
        await admin.ensure_stream(self.client, spec)

    async def ensure_consumer(self, spec: ConsumerSpec) -> ConsumerState:
        """Create or change the consumer; see `Broker.ensure_consumer`."""
        return await admin.ensure_consumer(self.client, spec)

    async def consumer_state(self, stream: str, consumer: str) -> ConsumerState | None:
        """How far a consumer is, or None."""
        info = await admin.consumer_info(self.client, stream, consumer)
        return None if info is None else admin.consumer_state(info)

    async def stream_info(self, stream: str) -> dict[str, Any] | None:
        """Configuration and state of a stream as JetStream gives them, or None."""
        return await admin.stream_info(self.client, stream)

    async def stream_names(self) -> list[str]:
        """The streams of the account."""
        return await admin.stream_names(self.client)

    async def delete_stream(self, stream: str) -> None:
        """Delete a stream with all that lies in it, if it is there."""
        await admin.delete_stream(self.client, stream)

    async def consumers(self, stream: str) -> list[dict[str, Any]]:
        """Every consumer of a stream; none if there is no stream."""
        return await admin.consumers(self.client, stream)

    async def consumer_info(self, stream: str, consumer: str) -> dict[str, Any] | None:
        """Configuration and state of a consumer, or None."""
        return await admin.consumer_info(self.client, stream, consumer)

    async def delete_consumer(self, stream: str, consumer: str) -> None:
        """Delete a consumer, if it is there."""
        await admin.delete_consumer(self.client, stream, consumer)

    async def pending(self, spec: ConsumerSpec) -> int:
        """Messages that a consumer would begin with; 0 if there is no stream."""
        return await admin.pending(self.client, spec)

    async def uncopied(self, spec: StreamSpec) -> bool:
        """Whether the copy is behind; see `Broker.uncopied`."""
        return await admin.uncopied(self.client, spec)

    async def stream_created(self, stream: str) -> str | None:
        """When the stream was made; see `Broker.stream_created`."""
        info = await admin.stream_info(self.client, stream)
        return None if info is None else str(info["created"])

    # --- buckets --------------------------------------------------------------------------------

    def bucket(
        self,
        name: str,
        *,
        max_age: float = 0.0,
        replicas: int = 1,
        ttls: bool = False,
        pushed: str | None = None,
    ) -> JetStreamBucket:
        """A key-value bucket; see `Broker.bucket`."""
        options = {"max_age": max_age, "replicas": replicas, "ttls": ttls, "pushed": pushed}
        return JetStreamBucket(self, name, **options)  # type: ignore[arg-type]

    # --- pulling --------------------------------------------------------------------------------

    async def pull(
        self,
        stream: str,
        consumer: str,
        *,
        on_message: Callable[[Delivery], None],
        on_released: Callable[[int, int], None],
        recreate: Callable[[], Awaitable[object]],
        expires: float | None = None,
    ) -> Puller:
        """Begin to pull; see `Broker.pull`."""
        inbox = self.client.new_inbox()
        pull = ContinuousPull(
            inbox,
            in_domain(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}", self._domain),
            self.client.write,
            time.monotonic,
            on_message=on_message,
            on_released=on_released,
            recreate=recreate,
            expires=expires,
        )
        subscription = await self.client.subscribe_direct(f"{inbox}.*", pull.on_raw)
        self._pulls.add(pull)
        task = self._watch(pull.run(), f"pull {consumer}")
        end = functools.partial(self._end, pull, subscription, task)
        return Puller(pull, lambda: self.client.is_connected, end)

    async def _end(
        self, pull: ContinuousPull, subscription: Subscription, task: asyncio.Task[None]
    ) -> None:
        """End a pull.

        The server keeps a request for its lifetime unless the interest in its reply is gone: so
        that is ended first, and the round trip of `flush` then shows everything that was already
        on its way, which `on_message` hands back.
        """
        pull.closed = True
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self._pulls.discard(pull)
        self._beside.remove(task)
        if self.client.is_connected:
            self.client.end_interest(subscription)
            try:
                await self.flush()
            except Unavailable as error:
                log.warning("closing a pull", reason=str(error))
        await self.client.unsubscribe_direct(subscription)

    # --- settling -------------------------------------------------------------------------------

    def publish(
        self,
        subject: str | bytes,
        header: bytes,
        payload: bytes,
        done: PublishDone,
        *,
        timeout: float | None = None,
        placed: Callable[[int], None] | None = None,
    ) -> None:
        """Publish; see `Broker.publish`. `placed` is told the sequence, before `done` is called."""
        if self._domain is not None:
            subject = subject if isinstance(subject, str) else subject.decode()
            subject = in_domain(subject, self._domain)
        if isinstance(subject, str):
            subject = subject.encode()
        self.publisher.publish(subject, header, payload, done, timeout, placed)

    async def room(self) -> None:
        """Return once there is room for another publish."""
        await self.publisher.room()

    @property
    def full(self) -> bool:
        """Whether a polite caller waits for `room`."""
        return self._publisher is not None and self._publisher.full

    def ack(self, delivery: Delivery) -> None:
        """Acknowledge; a lost one is delivered again, and its answer dropped as a repeat."""
        self.client.write(b"PUB %b 4\r\n+ACK\r\n" % delivery.reply)

    def nak(self, delivery: Delivery, delay: float) -> None:
        """Give back after `delay` seconds (a bare nak would skip the wait)."""
        body = b"-NAK"
        if delay > 0:
            body += b" " + json.dumps({"delay": int(delay * 1e9)}).encode()
        self._reply(delivery, body)

    def term(self, delivery: Delivery, reason: str) -> None:
        """Never deliver again."""
        self._reply(delivery, b"+TERM " + " ".join(reason.split())[:200].encode())

    def confirm(self, delivery: Delivery, done: Callable[[], None]) -> None:
        """Call `done` when the server has read how a delivery ended; see `Broker.confirm`."""
        self._confirmer.confirm(delivery.reply, done)

    def _again(self, reply: bytes) -> None:
        self.client.write(b"PUB %b 4\r\n+ACK\r\n" % reply)

    def progress(self, delivery: Delivery, heard: Callable[[], None] | None = None) -> None:
        """Start `ack_wait` anew; with `heard`, ask the server to say so."""
        if heard is None:
            self._reply(delivery, b"+WPI")
            return

        async def ask() -> None:
            if await self.client.answered(delivery.reply.decode(), b"+WPI"):
                heard()

        task = asyncio.create_task(ask(), name="renewal")
        self._renewals.add(task)
        task.add_done_callback(self._renewals.discard)

    def line(self) -> Line:
        """A second connection; see `worker.renewals.Lines`."""
        return Line(self._settings, f"{self._name} renewals")

    def unsent(self) -> list[bytes]:
        """Deliveries of which something waits to leave; see `Lines.unsent`."""
        start = b"PUB $JS.ACK."
        return [said.split(b" ", 2)[1] for said in self.client.unsent() if said.startswith(start)]

    def _reply(self, delivery: Delivery, body: bytes) -> None:
        self.client.write(b"PUB %b %d\r\n%b\r\n" % (delivery.reply, len(body), body))

    async def flush(self) -> None:
        """Return once the server has processed all that was sent.

        Raises:
            Unavailable: it does not answer.
        """
        try:
            await self.client.flush(timeout=int(FLUSH_TIMEOUT))
        except Exception as error:
            raise Unavailable(f"NATS did not take what was sent: {error}") from error

    async def close(self) -> None:
        """Close the connection and end the tasks beside it."""
        self._closing = True
        self._confirmer.close()
        beside = [*self._beside, *self._renewals]
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        self._beside.clear()
        if self._publisher is not None:
            closed = "the client is closed: publish inside of `async with mqinfer.connect(app)`"
            self._publisher.fail_all(MqinferError(closed))
        if self._client is not None:
            await self._client.close()


class Puller:
    """A running pull, as its runner sees it.

    Args:
        pull: its requests.
        connected: whether they would leave now.
        end: ends it.
    """

    def __init__(
        self,
        pull: ContinuousPull,
        connected: Callable[[], bool],
        end: Callable[[], Awaitable[None]],
    ):
        self._pull = pull
        self._connected = connected
        self._end = end

    def request(self, messages: int, max_bytes: int) -> None:
        """Ask for more; see `Pull.request`."""
        self._pull.request(messages, max_bytes)

    @property
    def paused(self) -> bool:
        """Whether to wait before the next request."""
        return self._pull.paused or not self._connected()

    @property
    def requests(self) -> int:
        """Requests that are open."""
        return self._pull.requests

    async def close(self) -> None:
        """Stop taking messages; those that still arrive are given to `on_message`."""
        await self._end()

    def __repr__(self) -> str:
        return repr(self._pull)
