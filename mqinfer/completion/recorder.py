"""Recorder: of one stage's messages, those that are below a root get a record of what they led to.

The settler asks it, and publishes what it gives; a stage below no root has none, and its messages
pay nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from mqinfer.codec import CONTENT_TYPES
from mqinfer.completion import roots
from mqinfer.completion.progress import outputs_in
from mqinfer.completion.record import (
    PIECE,
    First,
    Kind,
    Outcome,
    Output,
    Payload,
    Record,
    bounded,
    cut,
    encode,
    together,
)
from mqinfer.completion.roots import Root
from mqinfer.identity import (
    ANCESTORS,
    CONTENT_TYPE,
    DEADLINE,
    MODELS,
    MSG_ID,
    ROOTS,
    SAMPLED,
    TRACE,
    TRACE_STATE,
    format_models,
    header_block,
    header_line,
    output_id,
)

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.codec import Codec
    from mqinfer.context import Context
    from mqinfer.message import Message
    from mqinfer.ports import Delivery

_KEPT = (ANCESTORS, MODELS, TRACE, TRACE_STATE, CONTENT_TYPE, DEADLINE)
_MAX_HEADER = 4_000  # characters of one that is kept
_MAX_NUMBER = 40
_MAX_REASON = 500


class Handled(Protocol):
    """A message that was handled; `flow.job.Job` is one.

    Attributes:
        noted: its outputs and their numbers.
    """

    noted: list[tuple[int, Message]] | None

    @property
    def context(self) -> Context | None:
        """Who it is, and its headers."""

    @property
    def delivery(self) -> Delivery:
        """As the stream gave it."""


class Asked(Struct, frozen=True):
    """Of a stage that reads what an endpoint does: its requests are roots as well.

    Attributes:
        kinds: what the roots of these endpoints have for a type.
        readers: of the type.
        joins: those whose root such a message is.
    """

    kinds: frozenset[str]
    readers: tuple[str, ...]
    joins: tuple[str, ...]

    def is_of(self, identity: str, root: Root) -> bool:
        """Whether a message is the request that a root is, and not what came of it."""
        return root.kind in self.kinds and root.token in identity


class Recorder:
    """Records of one stage.

    Args:
        app: for subjects.
        stage: its name.
        run: the replay run, or None.
        root: the readers of the type that the stage reads, if that is a root's; else None.
        asked: where an endpoint reads that type.
        kind: the subject of that type.
        kinds: by type that it writes, who reads it now.
        wanted: by the subject of a root's type, the subjects of the outputs asked for.
        codec: payload encoder.
        max_payload: of the server, once there is one.
        soon: makes a call at the end of this turn of the loop: what ends in one turn and came of
            one root leaves in one message.
        bulk_kinds: types that have a subject of their own where they come of a job.
    """

    def __init__(
        self,
        app: App,
        stage: str,
        run: str | None,
        *,
        root: Sequence[str] | None,
        asked: Asked | None = None,
        kind: str,
        kinds: Mapping[type[Message], Kind],
        wanted: Mapping[str, Collection[str]],
        codec: Codec,
        max_payload: Callable[[], int] = lambda: 2 * PIECE,
        soon: Callable[[Callable[[], None]], object] | None = None,
        bulk_kinds: frozenset[type[Message]] = frozenset(),
    ):
        self.bulk_kinds = bulk_kinds
        self.soon = soon or _at_the_end
        self._max_payload = max_payload
        self._app = app
        self._stage = stage
        self._run = run
        self._root = None if root is None else tuple(root)
        self._asked = asked
        self._kind = kind
        self._kinds = kinds
        self._wanted = wanted
        self._codec = codec
        # The parts of a root come one behind the other, and each is asked several times.
        self._above = lru_cache(maxsize=1024)(self._read)

    def _read(self, told: str) -> tuple[Root, ...]:
        """The roots that a header names, without those of joins that are no more."""
        found = roots.parse(told, self._run)
        return tuple(root for root in found if root.kind in self._wanted)

    def roots_of(self, job: Handled) -> tuple[Root, ...]:
        """The roots that a message is below, itself first if it is one."""
        context = job.context
        assert context is not None
        outer: tuple[Root, ...] = ()
        if context.headers and (told := context.headers.get(ROOTS)):
            outer = self._above(told)
        if self._root is None:
            return outer
        return (roots.root_of(self._kind, context.id, self._run), *outer)[: roots.MAX_ROOTS]

    def header(self, job: Handled) -> str:
        """The header lines of a message's outputs, or ""."""
        found = self.roots_of(job)
        if not found:
            return ""
        assert job.context is not None
        line = header_line(ROOTS, roots.text(found))
        deadline = (job.context.headers or {}).get(DEADLINE)
        return line + header_line(DEADLINE, deadline[:_MAX_NUMBER]) if deadline else line

    def note(self, job: Handled, outputs: Sequence[Message], first: int) -> None:
        """These outputs are about to be published."""
        if job.noted is None:
            job.noted = []
        # What is above the bound is told by one output more; the others need not be held.
        if self.roots_of(job) and len(job.noted) <= self.most:
            job.noted += enumerate(outputs, first)

    def ended(
        self, job: Handled, outcome: Outcome, error: tuple[str, str] | None = None
    ) -> list[tuple[Root, Record]]:
        """What is to be known before a message is settled: a record for each root it is below.

        Args:
            job: the message.
            outcome: of its handling.
            error: kind and reason of its dead letter.
        """
        found = self.roots_of(job)
        payloads: dict[int, Payload] = {}
        return [
            (root, self._record(job, root, found[1:], outcome, error, payloads)) for root in found
        ]

    def encoded(self, record: Record) -> list[bytes]:
        """A record as it is stored, in as many parts as it takes."""
        return [encode(part) for part in cut(record, self.largest)]

    @property
    def most(self) -> int:
        """Outputs of a message that are told, and one more says that there are others."""
        return outputs_in(self._max_payload())

    @property
    def largest(self) -> int:
        """Bytes of records in one message, where there are several, and of a piece of one."""
        return min(PIECE, self._max_payload() // 2)

    def message(self, root: Root, records: Sequence[bytes]) -> tuple[bytes, bytes, bytes]:
        """Subject, header block and payload of records of one root."""
        payload = together(records)
        # By what it says: an attempt that gave other outputs than one before has a record of its
        # own, for the outputs of both are on the stream.
        digest = blake2b(str(root).encode(), digest_size=16)
        digest.update(payload)
        subject = roots.subject_of(self._app, root)
        return (
            subject.encode(),
            header_block({MSG_ID: digest.hexdigest(), ROOTS: str(root)}),
            payload,
        )

    def _record(
        self,
        job: Handled,
        root: Root,
        outer: tuple[Root, ...],
        outcome: Outcome,
        error: tuple[str, str] | None,
        payloads: dict[int, Payload],
    ) -> Record:
        context = job.context
        assert context is not None
        own = self._root is not None and root == roots.root_of(self._kind, context.id, self._run)
        asked = self._asked
        data: list[Payload] = []
        first = None
        if own:
            headers = context.headers or {}
            data.append(Payload(job.delivery.data, headers.get(CONTENT_TYPE, "")))
            first = First(
                readers=self._root or (),
                payload=0,
                published=job.delivery.published,
                headers={
                    name: value[:_MAX_HEADER]
                    for name in _KEPT
                    if name != CONTENT_TYPE and (value := headers.get(name))
                },
                outer=roots.text(outer),
            )
        elif asked is not None and asked.is_of(context.id, root):
            # What was asked is kept with the request; the joins wait for it, and it for them.
            first = First(asked.readers, -1, job.delivery.published, {}, joins=asked.joins)
        wanted = self._wanted[root.kind]
        places: dict[type[Message], int] = {}
        outputs = []
        for index, message in (job.noted or ())[: self.most + 1]:
            kind = type(message)
            at = -1
            if self._kinds[kind].subject in wanted:
                if index not in payloads:
                    payload, wire = self._codec.write(message)
                    payloads[index] = Payload(payload, CONTENT_TYPES[wire])
                at = len(data)
                data.append(payloads[index])
            identity = output_id(context.id, self._stage, self._run, index)
            outputs.append(Output(identity, places.setdefault(kind, len(places)), index, at))
        record = Record(
            id=context.id,
            stage=self._stage,
            outcome=outcome,
            run=self._run or "",
            kinds=tuple(self._kinds[kind] for kind in places),
            outputs=tuple(outputs),
            data=tuple(data),
            first=first,
            error=None if error is None else (error[0], error[1][:_MAX_REASON]),
            models=format_models(context.models) if context.models else "",
            trace=_trace(job, context),
        )
        return bounded(record, self.most)


def _trace(job: Handled, context: Context) -> str:
    """The span of what was done with a message, if there is a sampled one."""
    # Else the headers are those that it came with.
    if context.headers is job.delivery.headers:
        return ""
    told = context.headers.get(TRACE, "")
    return told if told.endswith(SAMPLED) and told != job.delivery.headers.get(TRACE) else ""


def _at_the_end(call: Callable[[], None]) -> object:
    return asyncio.get_running_loop().call_soon(call)
