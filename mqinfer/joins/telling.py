"""Telling: what came of a root becomes a message for the stage of each join that waits for it.

Its id follows from the root and the join, so that it is one however often it is published; its
lineage is the root's, so that what the join writes is below the root in every respect but one: the
root does not wait for it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from mqinfer.blob import Blob
from mqinfer.codec import CONTENT_TYPES, Codec
from mqinfer.completion import roots
from mqinfer.completion.assemble import Died, Found, Tale
from mqinfer.completion.progress import COMPLETE
from mqinfer.completion.record import Payload, joined_id
from mqinfer.completion.waited import TRACKER, bulk_kinds
from mqinfer.errors import MqinferError
from mqinfer.flow.publishing import publish_stored
from mqinfer.identity import (
    ANCESTORS,
    CONTENT_TYPE,
    LINKS,
    MODELS,
    MSG_ID,
    ROOTS,
    RUN,
    STAGE,
    extend_ancestors,
    header_block,
    parse_ancestors,
)

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.blob import BlobStore
    from mqinfer.completion.progress import Progress
    from mqinfer.completion.record import Record
    from mqinfer.completion.roots import Root
    from mqinfer.join import Join
    from mqinfer.ports import Broker

INLINE = 200_000  # bytes of root and outputs that ride in the message; more is stored as a blob

Stored = tuple[Payload | None, tuple[Found, ...], tuple[Died, ...]]
encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Stored).decode


class Telling:
    """Joins as those who wait for roots; see `completion.tracker.Waiting`.

    Args:
        app: whose.
        run: the replay run, or None.
        joins: of this work, by name.
        broker: to publish.
        store: of blobs.
    """

    def __init__(
        self,
        app: App,
        run: str | None,
        joins: Mapping[str, Join],
        *,
        broker: Broker,
        store: BlobStore | None,
    ):
        self._app = app
        self._run = run
        self._joins = joins
        self._broker = broker
        self._store = store
        self._codec = Codec(store)
        self._bulk = bulk_kinds(app) if run is None else frozenset()
        self._names: dict[str, list[str]] = {}
        for name, join in joins.items():
            self._names.setdefault(join.root.__mqinfer__.subject, []).append(name)

    def names(self, kind: str) -> Sequence[str]:
        """The joins of a type of root."""
        return self._names.get(kind, ())

    def wanted(self, name: str) -> Collection[str]:
        """The subjects of what a join asks for."""
        return {kind.__mqinfer__.subject for kind in self._joins[name].of}

    def heeds_first(self, _name: str) -> bool:
        """A stage is given what it is told, whenever: that must not change."""
        return False

    def advance(self, name: str, root: Root, records: Sequence[Record], known: Progress) -> None:
        """A join is told of all at once."""

    async def tell(self, name: str, root: Root, told: Tale) -> None:
        """Publish it for the stage of a join.

        Raises:
            MqinferError: it cannot be stored now.
        """
        del root  # what is told says whose it is
        join = self._joins[name]
        identity = joined_id(told.id, name, self._run or "")
        given, outputs, died, stored = told.root, told.outputs, told.died, None
        if _size(told) > min(INLINE, self._broker.max_payload // 2):
            stored = await self._keep(identity, (given, outputs, died))
            given, outputs, died = None, (), ()
        message = join.joined(
            root=given,
            outputs=outputs,
            died=died,
            incomplete="" if told.how == COMPLETE else told.how,
            missing=told.missing,
            stored=stored,
        )
        payload, wire = self._codec.write(message)
        headers = {CONTENT_TYPE: CONTENT_TYPES[wire], MSG_ID: identity, STAGE: TRACKER}
        if self._run:
            headers[RUN] = self._run
        if told.models:
            headers[MODELS] = told.models
        first = told.first.headers if told.first is not None else {}
        ancestors = parse_ancestors(first.get(ANCESTORS))
        headers = {**first, **headers}
        if told.traces:
            headers[LINKS] = " ".join(told.traces)
        headers[ANCESTORS] = " ".join(extend_ancestors(ancestors, told.id))
        if told.first is not None and (outer := roots.parse(told.first.outer, self._run)):
            headers[ROOTS] = roots.text(outer)
        bulk = join.joined in self._bulk and roots.bulk(headers)
        subject = self._app.subject(join.joined, self._run, bulk=bulk)
        await publish_stored(self._broker, subject, header_block(headers), payload)

    async def _keep(self, identity: str, what: Stored) -> Blob:
        if self._store is None:
            raise MqinferError("no blob store is configured: set MQINFER_BLOBS")
        folder = f"runs/{self._run}/joins" if self._run else "joins"
        blob = Blob.at(f"{folder}/{identity}")
        assert blob.path is not None
        await self._store.put(blob.path, encode(what))
        return blob


def _size(told: Tale) -> int:
    """About the bytes that it takes."""
    size = sum(len(one.payload.data) + len(one.id) + 40 for one in told.outputs)
    size += sum(len(one.reason) + len(one.id) + 40 for one in told.died)
    return size + (len(told.root.data) if told.root is not None else 0)
