"""The library's way in: a client that publishes, and a worker that runs in this process."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import (
    AsyncExitStack,
    asynccontextmanager,
    suppress,
)
from typing import TYPE_CHECKING

import structlog

from mqinfer import blob, plan, wiring
from mqinfer.birth import new_id
from mqinfer.blobfields import can_hold_blobs
from mqinfer.clientjobs import ClientJobs
from mqinfer.clientrequests import ClientRequests
from mqinfer.clientsearch import ClientSearch
from mqinfer.clientstates import ClientStates
from mqinfer.clienttimers import ClientTimers
from mqinfer.codec import CONTENT_TYPES, Codec
from mqinfer.errors import ConfigurationError, PermissionDenied, PublishError
from mqinfer.flow.publishing import publish_stored
from mqinfer.flow.saveblobs import save_blobs
from mqinfer.identity import CONTENT_TYPE, MSG_ID, given_id, header_block, header_line, safe_id
from mqinfer.message import Message, Wire, key_token
from mqinfer.model import ClientInference, Inference, Model, clients, entered
from mqinfer.publishable import meet
from mqinfer.rowpacks.gather import Gatherer
from mqinfer.rowpacks.which import pack_subject, packed
from mqinfer.seldom import Seldom
from mqinfer.settings import Settings
from mqinfer.worker.services import Services

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.blob import BlobStore
    from mqinfer.ports import ConsumerSpec

log = structlog.get_logger("mqinfer.worker")

PUBLISH_TIMEOUT = 30.0


class Client(ClientTimers, ClientStates, ClientRequests, ClientJobs, ClientSearch):
    """Publishes messages of one app, and calls its models; made by `mqinfer.connect(app)`.

    A message that is refused leaves the client usable. Models may be called in any task, event loop
    and thread, while the loop that it was connected on runs; publishing belongs to that loop.
    """

    def __init__(self, app: App, services: Services, inference: Inference | None = None):
        self.app = app
        self._services = services
        self._codec = Codec(services.store)
        self._inference = inference
        self._met: set[type] = set()
        self._repeats = Seldom(log, "dropped: the stream has one of this id")

    def model(self, model: Model | str) -> Model:
        """A handle that this client always answers, whichever task calls it.

            score = await client.model("grader")(x=array)

        Args:
            model: one that the app declared, or how `app.models` calls it: "grader", "grader:2"
                with a pinned version, "grader@best" with an alias.

        Raises:
            ConfigurationError: the app declared none such.
        """
        declared = self.app.models
        found = declared.get(model) if isinstance(model, str) else model
        if found is None or found.app is not self.app or self._inference is None:
            raise ConfigurationError(
                f"app {self.app.name} declares no model {model}: it has "
                f"{', '.join(declared) or 'none; declare it with app.model(...)'}"
            )
        bound = copy.copy(found)
        bound.client = self._inference
        return bound

    @property
    def blobs(self) -> BlobStore:
        """The blob store that workers read from."""
        assert self._services.store is not None
        return self._services.store

    async def publish(
        self,
        message: Message,
        *,
        id: str | None = None,  # noqa: A002 - the word users know
        timeout: float = PUBLISH_TIMEOUT,
        on_repeat: Callable[[str], object] | None = None,
    ) -> str:
        """Publish one message and return its id once JetStream has stored it.

        Args:
            message: of any type that the app reads or writes.
            id: its identity among the messages of its type; the same one within the stream's
                duplicate window is stored once, and later its answers are the same (see "Ids" in
                docs/guarantees.md). One that ends in a day (`p17@2026-05-27`), or is a UUID of
                version 7, says by which day what comes of it is stored (docs/tables.md). None
                makes such a UUID.
            timeout: seconds to wait out an outage or a full stream.
            on_repeat: called with the id where the stream had one of this type and id already, so
                that this one was dropped (also where the answer to this very publish was lost, and
                it went out again). None writes a warning into the log, one a second at most.

        Raises:
            EncodeError: it is no message, or a value in it is not what its type says; nothing was
                sent.
            BlobError: a blob in it cannot be stored.
            PayloadTooLarge: it exceeds the server's limit; nothing was sent.
            PublishTimeout: no acknowledgement in time; publish it again under the same id.
            PublishError: the stream refuses it for good.
        """
        payload, wire = await self._encoded(message)
        return await self.publish_raw(
            self._subject(message),
            payload,
            content_type=CONTENT_TYPES[wire],
            id=id,
            timeout=timeout,
            on_repeat=on_repeat,
        )

    def _subject(self, message: Message) -> str:
        """The full subject of a message."""
        key = message.__mqinfer__.key
        subject = self.app.subject(type(message))
        return subject if key is None else f"{subject}.{key_token(getattr(message, key))}"

    async def _encoded(self, message: Message) -> tuple[bytes, Wire]:
        """The payload of a message whose blobs are stored, and its format."""
        if type(message) not in self._met:
            self._met.add(meet(self.app, message))
        if can_hold_blobs(type(message)):
            await save_blobs(
                [message],
                self._services.store,
                inline_limit=self._services.inline_limit,
                max_payload=self._services.broker.max_payload,
            )
        return self._codec.write(message)

    async def publish_raw(
        self,
        subject: str,
        payload: bytes,
        *,
        content_type: str | None = None,
        id: str | None = None,  # noqa: A002 - the word users know
        timeout: float = PUBLISH_TIMEOUT,
        on_repeat: Callable[[str], object] | None = None,
    ) -> str:
        """Publish bytes on a full subject as they are; otherwise like `publish`."""
        if id:
            identity = safe_id(id)
            kind = self.app.kind_of(subject)
            headers = given_id(subject if kind is None else self.app.subject(kind), identity)
        else:
            identity = new_id()
            headers = {MSG_ID: identity}
        if content_type is not None:
            headers[CONTENT_TYPE] = content_type
        if (tracing := self._services.tracing) is not None and (span := tracing.current()):
            headers.update(span.headers)
        broker = self._services.broker
        if broker.full:
            await broker.room()
        repeat = await publish_stored(
            broker, subject, header_block(headers), payload, timeout=timeout
        )
        if repeat and id:  # one with a random id was sent twice, since an answer was lost
            if on_repeat is not None:
                on_repeat(identity)
            else:
                self._repeats.warn(subject=subject, id=identity)
        return identity

    async def publish_all(
        self,
        messages: Sequence[Message],
        *,
        ids: Sequence[str] | None = None,
        on_repeat: Callable[[str], object] | None = None,
    ) -> list[str]:
        """Publish many side by side; the ids in their order. See `publish`.

        Rows that only their table's sink reads go many in one message where no ids are given; with
        ids each goes alone, so that the stream drops a repeat of it.

        Raises:
            PublishError: the first that was refused; the others were tried all the same.
        """
        if ids is not None and len(ids) != len(messages):
            raise PublishError(f"{len(messages)} messages and {len(ids)} ids")
        gatherers: dict[type[Message], Gatherer] = {}
        if ids is None:
            broker = self._services.broker
            heads = {wire: header_line(CONTENT_TYPE, name) for wire, name in CONTENT_TYPES.items()}
            # An app that is declared without its stages does not say who reads its rows.
            for kind in {type(one) for one in messages} & set(self.app.rows.values()):
                if packed(self.app, kind):
                    subject = pack_subject(self.app, kind).encode()
                    gatherers[kind] = Gatherer(subject, heads, broker, PUBLISH_TIMEOUT, texts=True)

        async def one(index: int, message: Message) -> str:
            if gatherer := gatherers.get(type(message)):
                payload, wire = await self._encoded(message)
                if len(payload) <= gatherer.largest:
                    await gatherer.store(wire, identity := new_id(), payload)
                    return identity
            return await self.publish(message, id=ids[index] if ids else None, on_repeat=on_repeat)

        results = await asyncio.gather(
            *(one(index, message) for index, message in enumerate(messages)),
            return_exceptions=True,  # each is tried, whatever becomes of the others
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if isinstance(result, str)]

    async def lag(self, name: str) -> int:
        """How many messages a stage or sink has not done; a pack of rows is one.

        A message is done when all that its handler wrote is in the stream, and a row when it is
        in its table. So when stages are asked in the order in which messages pass, then sinks, and
        each in turn has nothing left, all that was published before is answered.

        Args:
            name: of the stage, or `sink-<table>`.

        Returns:
            Those that wait and those in flight; -1 while no worker has ever run it, and of a sink
            while none of a version that reads packs has.

        Raises:
            ConfigurationError: the app has no such stage or sink.
            Unavailable: NATS does not answer.
        """
        (task,) = plan.tasks(self.app, [name])
        broker, found = self._services.broker, 0
        # What is published may not be in a partition yet: asked first, or it could slip between.
        behind = task.ordered and await broker.uncopied(plan.copy_spec(self.app, task.reads))
        for spec in plan.consumer_specs(self.app, task):
            state = await broker.consumer_state(spec.stream, spec.name)
            if state is None:
                return -1
            found += state.lag or await self._undelivered(spec, state.delivered)
        return found or int(behind)

    async def _undelivered(self, spec: ConsumerSpec, delivered: int) -> bool:
        """Whether the stream has more for a consumer than the server knows that leads it.

        In a cluster that may be another one, which is behind.
        """
        streams = self._services.streams
        assert streams is not None
        with suppress(PermissionDenied):  # what the consumer says is all there is to know then
            return any([await streams.newest(spec.stream, f) > delivered for f in spec.filters])
        return False


@asynccontextmanager
async def connect(app: App, settings: Settings | None = None) -> AsyncIterator[Client]:
    """`mqinfer.connect`, which says all about it."""
    settings = settings or Settings.load()
    async with wiring.services(app, settings, "client") as services:
        if plan.uses_timers(app) and services.timers is not None:
            await services.timers.ensure(plan.timers_spec(app))
        await services.broker.ensure_stream(plan.stream_spec(app))
        inference, calls = services.inference, None
        assert services.store is not None
        with blob.stores.offered(app, services.store), wiring.searched(app, services):
            async with AsyncExitStack() as stack:
                if inference is not None:
                    await stack.enter_async_context(inference)
                    calls = ClientInference(stack.enter_context(clients.offered(app, inference)))
                    stack.enter_context(entered(inference))
                client = Client(app, services, calls)
                stack.callback(client._repeats.tell)
                yield client
