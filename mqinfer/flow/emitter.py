"""Emitter: outputs of a handler become messages with an identity, a lineage and a subject."""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mqinfer.blobfields import can_hold_blobs
from mqinfer.codec import CONTENT_TYPES, Codec
from mqinfer.completion import roots
from mqinfer.context import current
from mqinfer.flow.job import Job
from mqinfer.flow.saveblobs import save_blobs
from mqinfer.identity import (
    ANCESTORS,
    CONTENT_TYPE,
    MAX_ID,
    MAX_TRACE_STATE,
    MODELS,
    RUN,
    STAGE,
    TRACE,
    TRACE_STATE,
    extend_ancestors,
    format_models,
    header_line,
    output_block,
    output_id,
)
from mqinfer.message import Message, Wire, key_token
from mqinfer.rowpacks.gather import Gatherer, Group
from mqinfer.rowpacks.which import pack_subject, packed

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.blob import BlobStore
    from mqinfer.completion.recorder import Recorder
    from mqinfer.ports import Broker


class Outlet:
    """What is the same for every message of one type from one stage, made once."""

    __slots__ = ("bulk", "heads", "key", "may_hold_blobs", "packs", "subject")

    def __init__(self, app: App, kind: type[Message], stage: str, run: str | None):
        info = kind.__mqinfer__
        self.subject = self.bulk = app.subject(kind, run).encode()
        self.key = info.key
        self.may_hold_blobs = can_hold_blobs(kind)
        rest = header_line(STAGE, stage) if stage else ""
        if run:
            rest += header_line(RUN, run)
        self.heads = {
            wire: header_line(CONTENT_TYPE, name) + rest for wire, name in CONTENT_TYPES.items()
        }

        self.packs: Gatherer | None = None  # of rows that travel packed

    def subject_of(self, message: Message, *, bulk: bool) -> bytes:
        """The subject, with the key's value if the type has one; `bulk` where it comes of a job."""
        subject = self.bulk if bulk else self.subject
        if self.key is None:
            return subject
        return b"%b.%b" % (subject, key_token(getattr(message, self.key)).encode())


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
        pack: whether rows that only a sink reads go many in one message.
        recorder: of what is below a message that somebody waits for; None is below none.

    Attributes:
        packs: whether any of what it writes does.
        recorder: as it was given.
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
        pack: bool = True,
        recorder: Recorder | None = None,
    ):
        self.recorder = recorder
        self._stage = stage
        self._run = run
        self._codec = codec
        self._store = store
        self._inline_limit = inline_limit
        self._broker = broker
        self._outlets = {kind: Outlet(app, kind, stage, run) for kind in writes}
        for kind, outlet in self._outlets.items():
            if pack and packed(app, kind):
                subject = pack_subject(app, kind, run).encode()
                outlet.packs = Gatherer(subject, outlet.heads, broker)
        if recorder is not None and run is None:
            for kind in recorder.bulk_kinds & self._outlets.keys():
                self._outlets[kind].bulk = app.subject(kind, bulk=True).encode()
        self.packs = any(outlet.packs for outlet in self._outlets.values())
        self._plain = not any(outlet.may_hold_blobs for outlet in self._outlets.values())

    def rows_a_pack(self, kind: type[Message]) -> float:
        """How many rows of a type it puts into a message, in the mean of late; 1 of any other."""
        packs = self._outlets[kind].packs
        return 1.0 if packs is None else packs.rows_a_pack

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

    def writes(self, kind: type[Message]) -> bool:
        """Whether the stage may write a type."""
        return kind in self._outlets

    def _foreign(self, item: object) -> TypeError:
        declared = ", ".join(kind.__name__ for kind in self._outlets) or "nothing"
        what = type(item).__name__
        advice = f"; its annotation declares {declared}"
        if inspect.isawaitable(item):
            advice = f" that nobody awaited: write `await` before the call{advice}"
            if inspect.iscoroutine(item):
                what = f"coroutine, {item.__qualname__},"
                item.close()  # it would complain of the same, later
        return TypeError(f"stage {self._stage} wrote a {what}{advice}")

    @property
    def plain(self) -> bool:
        """Whether nothing has to be awaited before publishing."""
        return self._plain and not self._broker.full

    async def prepare(self, outputs: Sequence[Message]) -> None:
        """Store the blobs of `outputs` and wait for room, before `make`.

        Raises:
            BlobError: a blob cannot be stored.
            Unavailable: the store does not answer.
            Exception: whatever the encoder raises for an output that cannot be encoded.
        """
        if not self._plain:
            await save_blobs(
                [one for one in outputs if self._outlets[type(one)].may_hold_blobs],
                self._store,
                inline_limit=self._inline_limit,
                max_payload=self._broker.max_payload,
                run=self._run,
            )
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

        Raises:
            EncodeError: a value of an output is not what its type says; nothing is made.
        """
        context = job.context
        assert context is not None
        tail = self._tail(job)
        bulk = self.recorder is not None and roots.bulk(context.headers)
        made = []
        for index, output in enumerate(outputs, first):
            outlet = self._outlets[type(output)]
            identity = output_id(context.id, self._stage, self._run, index)
            payload, wire = self._codec.write(output)
            block = output_block(outlet.heads[wire], identity, tail)
            made.append((outlet.subject_of(output, bulk=bulk), block, payload))
        return made

    def make_packed(
        self, job: Job, outputs: Sequence[Message], first: int = 0
    ) -> tuple[list[tuple[bytes, bytes, bytes]], list[tuple[Gatherer, Wire, Group]]]:
        """As `make`, where some of `outputs` may be rows that travel packed.

        Returns:
            Messages as of `make`, and rows to be gathered: by type and format, in their order.

        Raises:
            EncodeError: a value of an output is not what its type says; nothing is made.
        """
        context = job.context
        assert context is not None
        tail = self._tail(job)
        bulk = self.recorder is not None and roots.bulk(context.headers)
        made: list[tuple[bytes, bytes, bytes]] = []
        groups: dict[tuple[type[Message], Wire], tuple[Gatherer, Wire, Group]] = {}
        for index, output in enumerate(outputs, first):
            kind = type(output)
            outlet = self._outlets[kind]
            identity = output_id(context.id, self._stage, self._run, index)
            payload, wire = self._codec.write(output)
            packs = outlet.packs
            if packs is None or len(payload) + len(tail) > packs.largest:
                block = output_block(outlet.heads[wire], identity, tail)
                made.append((outlet.subject_of(output, bulk=bulk), block, payload))
                continue
            found = groups.get((kind, wire))
            if found is None:
                found = groups[kind, wire] = (packs, wire, Group(tail))
            found[2].add(identity, payload)
        return made, list(groups.values())

    def _tail(self, job: Job) -> str:
        """The header lines that the children of one message share."""
        context = job.context
        assert context is not None
        # Ids can end no line, and neither can what is printable: these are not through header_line.
        lineage = context.id
        if job.ancestors:
            lineage = " ".join(extend_ancestors(job.ancestors, context.id))
        tail = f"{ANCESTORS}: {lineage}\r\n"
        if context.models:
            tail += header_line(MODELS, format_models(context.models))
        trace = context.headers.get(TRACE)
        if trace and len(trace) <= MAX_ID and trace.isprintable():
            tail += f"{TRACE}: {trace}\r\n"
            state = context.headers.get(TRACE_STATE)
            if state and len(state) <= MAX_TRACE_STATE and state.isprintable():
                tail += f"{TRACE_STATE}: {state}\r\n"
        if self.recorder is not None:
            tail += self.recorder.header(job)
        return tail
