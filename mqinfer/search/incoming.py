"""Incoming: vectors out of what the stream delivered, single messages and packs of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from mqinfer.errors import DecodeError
from mqinfer.hits import Plain
from mqinfer.identity import CONTENT_TYPE, MODELS, RUN, parse_models
from mqinfer.rowpacks.unpack import Pack
from mqinfer.rowpacks.which import row_subject
from mqinfer.search.columns import plain

if TYPE_CHECKING:
    from mqinfer.codec import Codec
    from mqinfer.hits import Key
    from mqinfer.index import Index
    from mqinfer.message import Message
    from mqinfer.ports import Delivery
    from mqinfer.search.generations import Generation

log = structlog.get_logger("mqinfer.search")


@dataclass(frozen=True, slots=True)
class Vector:
    """A key's vector, as somebody wrote it.

    Attributes:
        key: whose it is.
        version: of what is known of the key; the greatest one counts. Twice the place in the
            stream, and one more where its pack has the key several times: the table does not know
            which of them is the last.
        vector: as it is in the message; empty takes the key out.
        values: of the fields to filter by.
    """

    key: Key
    version: int
    vector: Any
    values: tuple[Plain, ...]


def key_of(value: Any) -> Key:
    """A key: text or a whole number; what is neither (a UUID, a date) as text."""
    return value if isinstance(value, (str, int)) else str(value)


class Incoming:
    """What reads the vectors of a generation.

    Args:
        index: of which.
        kind: the type of the vectors.
        generation: that they must be of.
        codec: decodes them.
    """

    def __init__(self, index: Index, kind: type[Message], generation: Generation, codec: Codec):
        self._index = index
        self._kind = kind
        self._generation = generation
        self._codec = codec

    def read(self, delivery: Delivery) -> list[Vector]:
        """The vectors of a message, in their order.

        What cannot be decoded is none: who reads it as a row or in a stage has dead-lettered it.
        """
        try:
            return list(self._read(delivery))
        except DecodeError as error:
            log.warning("this is no vector", sequence=delivery.sequence, reason=str(error))
            return []

    def _read(self, delivery: Delivery) -> Iterator[Vector]:
        headers = delivery.headers
        run = headers.get(RUN, "")
        if run not in ("", self._generation.run):
            return
        if row_subject(delivery.subject) is None:
            kind, content = self._kind, headers.get(CONTENT_TYPE)
            message = self._codec.decode(kind, delivery.data, content)
            if self._belongs(message, parse_models(headers.get(MODELS)), run):
                yield self.vector(message, 2 * delivery.sequence)
            return
        pack = Pack(self._kind, delivery.data, headers.get(CONTENT_TYPE), self._codec)  # type: ignore[arg-type]
        found: dict[Key, Vector] = {}
        for row, models in zip(pack.rows, pack.models(), strict=True):
            if row is not None and self._belongs(row, models, run):
                key = key_of(getattr(row, self._index.key))
                found[key] = self.vector(row, 2 * delivery.sequence + (key in found))
        yield from found.values()

    def _belongs(self, message: Message, models: Mapping[str, str], run: str) -> bool:
        """Whether it is of the generation; what takes a key out is of each, whichever model asked.

        Whoever deletes asks no model: so of a version's generation nothing could be deleted.
        """
        if self._generation.admits(models, run):
            return True
        return len(getattr(message, self._index.vector)) == 0

    def vector(self, message: Message, version: int) -> Vector:
        """The vector in a message."""
        index = self._index
        values = tuple(plain(getattr(message, name)) for name in index.filters)
        return Vector(
            key_of(getattr(message, index.key)), version, getattr(message, index.vector), values
        )
