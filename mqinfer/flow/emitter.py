"""Emitter: outputs of a handler become messages with an identity, a lineage and a subject."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mqinfer.blob import Blob
from mqinfer.codec import CONTENT_TYPES, Codec
from mqinfer.context import current
from mqinfer.errors import MqinferError
from mqinfer.flow.job import Job
from mqinfer.identity import (
    ANCESTORS,
    CONTENT_TYPE,
    MAX_ID,
    MAX_TRACE_STATE,
    MODELS,
    MSG_ID,
    RUN,
    STAGE,
    TRACE,
    TRACE_STATE,
    extend_ancestors,
    format_models,
    output_id,
)
from mqinfer.message import Message, key_token

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.blob import BlobStore
    from mqinfer.ports import Broker


class Outlet:
    """What is the same for every message of one type from one stage, made once."""

    __slots__ = ("carries_blobs", "head", "key", "subject")

    def __init__(self, app: App, kind: type[Message], stage: str, run: str | None):
        info = kind.__mqinfer__
        self.subject = app.subject(kind, run).encode()
        self.key = info.key
        self.carries_blobs = carries_blobs(kind)
        lines = [f"{CONTENT_TYPE}: {CONTENT_TYPES[info.wire]}"]
        if stage:
            lines.append(f"{STAGE}: {stage}")
        if run:
            lines.append(f"{RUN}: {run}")
        self.head = "NATS/1.0\r\n" + "\r\n".join(lines) + f"\r\n{MSG_ID}: "

    def subject_of(self, message: Message) -> bytes:
        """The subject, with the key's value if the type has one."""
        if self.key is None:
            return self.subject
        return b"%b.%b" % (self.subject, key_token(getattr(message, self.key)).encode())


class Emitter:
    """Publishes what one stage writes.

    Args:
        app: for subjects.
        stage: its name.
        writes: the types that it may write.
        run: the replay run, or None for live.
        codec: payload encoder.
        store: where blobs go.
        inline_limit: bytes of a blob that may ride in the message.
        broker: that publishes.
    """

    def __init__(
        self,
        app: App,
        stage: str,
        writes: Sequence[type[Message]],
        *,
        run: str | None,
        codec: Codec,
        store: BlobStore | None,
        inline_limit: int,
        broker: Broker,
    ):
        self._stage = stage
        self._run = run
        self._codec = codec
        self._store = store
        self._inline_limit = inline_limit
        self._broker = broker
        self._outlets = {kind: Outlet(app, kind, stage, run) for kind in writes}
        self._plain = not any(outlet.carries_blobs for outlet in self._outlets.values())

    def checked(self, result: Any) -> Sequence[Message]:
        """What a handler returned, as a list of messages that it may write.

        Raises:
            TypeError: something else was returned or yielded.
        """
        if type(result) in self._outlets:
            return (result,)
        if result is None:
            return ()
        if isinstance(result, (list, tuple)):
            for item in result:
                if type(item) not in self._outlets:
                    raise self._foreign(item)
            return result
        raise self._foreign(result)

    def _foreign(self, item: object) -> TypeError:
        declared = ", ".join(kind.__name__ for kind in self._outlets) or "nothing"
        return TypeError(
            f"stage {self._stage} wrote a {type(item).__name__}; its annotation declares {declared}"
        )

    @property
    def plain(self) -> bool:
        """Whether nothing has to be awaited before publishing."""
        return self._plain and not self._broker.full

    async def prepare(self, outputs: Sequence[Message]) -> None:
        """Store the blobs of `outputs` and wait for room, before `emit`.

        Raises:
            BlobError: a blob cannot be stored.
            Unavailable: the store does not answer.
        """
        if not self._plain:
            for output in outputs:
                if self._run is not None:
                    # A path that the handler chose is one below the run's folder.
                    for blob in blobs_in(output):
                        blob.keep_under(f"runs/{self._run}")
                await save_blobs(output, self._store, self._inline_limit)
        if self._broker.full:
            await self._room()

    async def _room(self) -> None:
        """Wait for room: that is an outage of the stream, which the stage's timeout does not count.

        The messages of a batch share the context of the first, as they share its time.
        """
        context = current.get()
        if context is None:
            await self._broker.room()
            return
        context.pause(time.monotonic())
        try:
            await self._broker.room()
        finally:
            context.resume(time.monotonic())

    def make(
        self, job: Job, outputs: Sequence[Message], first: int = 0
    ) -> list[tuple[bytes, bytes, bytes]]:
        """Subject, header block and payload of each of `outputs`, the children of `job`.

        They are numbered from `first`. All are made before any is published: an output that cannot
        be encoded must not leave its siblings on the stream.
        """
        context = job.context
        assert context is not None
        tail = self._tail(job)
        made = []
        for index, output in enumerate(outputs, first):
            outlet = self._outlets[type(output)]
            identity = output_id(context.id, self._stage, self._run, index)
            header = (outlet.head + identity + tail).encode("utf-8", "surrogateescape")
            made.append((outlet.subject_of(output), header, self._codec.encode(output)))
        return made

    def _tail(self, job: Job) -> str:
        """The header lines that the children of one message share."""
        context = job.context
        assert context is not None
        ancestors = extend_ancestors(job.ancestors, context.id)
        tail = f"\r\n{ANCESTORS}: {' '.join(ancestors)}"
        models = context.models
        if models:
            tail += f"\r\n{MODELS}: {format_models(models)}"
        trace = context.headers.get(TRACE)
        if trace and len(trace) <= MAX_ID and trace.isprintable():
            tail += f"\r\n{TRACE}: {trace}"
            state = context.headers.get(TRACE_STATE)
            if state and len(state) <= MAX_TRACE_STATE and state.isprintable():
                tail += f"\r\n{TRACE_STATE}: {state}"
        return tail + "\r\n\r\n"


def carries_blobs(kind: type[Message]) -> bool:
    """Whether a message type has a field with a `Blob` in it."""
    return any("Blob" in str(hint) for hint in kind.__annotations__.values()) or any(
        carries_blobs(base)
        for base in kind.__mro__[1:]
        if issubclass(base, Message) and base is not Message
    )


async def save_blobs(message: Message, store: BlobStore | None, inline_limit: int) -> None:
    """Store the bytes of every blob in the fields of `message` that does not ride inline.

    Raises:
        BlobError: a blob cannot be stored.
        MqinferError: there is no store.
    """
    for blob in blobs_in(message):
        if blob.inline is None:
            continue
        if store is None:
            raise MqinferError("no blob store is configured: set MQINFER_BLOBS")
        await blob.save(store, inline_limit)


def blobs_in(message: Message) -> Iterator[Blob]:
    """Every blob in the fields of a message."""
    for name in message.__struct_fields__:
        value = getattr(message, name)
        for blob in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(blob, Blob):
                yield blob
