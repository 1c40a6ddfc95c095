"""Unpack: a pack's rows again, each with who it is and what it came from.

The array of rows is decoded in one call. Only where that fails is each row looked at by itself, so
that one that cannot be read costs no other: it is a message of its own again (`Single`), as which
it is dead-lettered, looked at and sent back.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from mqinfer.codec import Codec
from mqinfer.errors import DecodeError
from mqinfer.identity import (
    ANCESTORS,
    CONTENT_TYPE,
    IDENTITY,
    MODELS,
    MSG_ID,
    ONLY,
    RUN,
    STAGE,
    parse_ancestors,
    parse_models,
)
from mqinfer.message import Row
from mqinfer.rowpacks import layout
from mqinfer.rowpacks.which import row_subject

if TYPE_CHECKING:
    from mqinfer.ports import Delivery

T = TypeVar("T")

_JSON = (b"[", b" ", b"\n", b"\r", b"\t")  # an array in msgpack begins with none of these
# Not a lineage's to say, whoever made the pack.
_NO_LINEAGE = frozenset((CONTENT_TYPE, IDENTITY, MSG_ID, ONLY, RUN, STAGE))


class Pack:
    """The rows of one message.

    Args:
        kind: their type.
        data: the payload.
        content_type: of the rows.
        codec: decodes them.

    Attributes:
        rows: decoded; None where one cannot be.
        ids: their identities.
        refused: place -> why it cannot be decoded.

    Raises:
        DecodeError: nothing of it can be read.
    """

    __slots__ = ("_codec", "_content_type", "_kind", "_lineages", "_view", "ids", "refused", "rows")

    def __init__(self, kind: type[Row], data: bytes, content_type: str | None, codec: Codec):
        self._kind, self._codec = kind, codec
        self._lineages, self._view = layout.read(data)
        self._content_type = content_type
        self.ids = self._lineages.identities()
        self.refused: dict[int, DecodeError] = {}
        self.rows: Sequence[Row | None]
        try:
            self.rows = self._array(kind)
        except Exception:  # noqa: BLE001 - whatever the bytes make a library raise: told below
            self.rows = [self._one(place, raw) for place, raw in enumerate(_raw(self._view))]
        if len(self.rows) != len(self.ids):
            raise DecodeError(f"the pack says {len(self.ids):,} rows, and has {len(self.rows):,}")

    def _array(self, kind: Any) -> list[Any]:
        wire = self._codec.wire(self._kind, bytes(self._view[:1]), self._content_type)
        array: Any = list[kind]
        found: list[Any] = self._codec.decoder(array, wire)(self._view)  # type: ignore[arg-type]
        return found

    def _one(self, place: int, raw: bytes) -> Row | None:
        try:
            return self._codec.decode(self._kind, raw, self._content_type)
        except DecodeError as error:
            self.refused[place] = error
            return None

    # --- lineages -------------------------------------------------------------------------------

    def of_rows(self, name: str, read: Callable[[str], T]) -> list[T]:
        """What a header of their lineages says, for each row; `read` makes it of the text.

        Rows of one lineage, and lineages of one text, share the value.
        """
        texts = self._lineages.headers.get(name)
        if texts is None:
            return [read("")] * len(self.ids)
        found = {text: read(text) for text in dict.fromkeys(texts)}
        return self._spread([found[text] for text in texts])

    def _spread(self, values: list[T]) -> list[T]:
        if len(values) == len(self.ids):
            return values
        counts = self._lineages.counts
        return list(itertools.chain.from_iterable(map(itertools.repeat, values, counts)))

    def ancestors(self) -> list[tuple[str, ...]]:
        """Ids of the messages that each row was made from."""
        texts = self._lineages.headers.get(ANCESTORS)
        if texts is None:
            return [()] * len(self.ids)
        return self._spread(list(map(parse_ancestors, texts)))  # no two are the same

    def models(self) -> list[dict[str, str]]:
        """Models that answered on the way to each row."""
        return self.of_rows(MODELS, parse_models)

    # --- one by one -----------------------------------------------------------------------------

    def singles(self, places: Iterable[int], delivery: Delivery) -> list[Single]:
        """Rows as messages of their own.

        Args:
            places: which.
            delivery: of the pack.
        """
        rows = _raw(self._view)
        of_place = self._spread(list(range(len(self._lineages.counts))))
        shared = {
            name: value
            for name in (STAGE, RUN)
            if (value := delivery.headers.get(name)) is not None
        }
        if self._content_type is not None:
            shared[CONTENT_TYPE] = self._content_type
        found = []
        for place in places:
            lineage = {
                name: values[of_place[place]]
                for name, values in self._lineages.headers.items()
                if values[of_place[place]] and name not in _NO_LINEAGE
            }
            own = {MSG_ID: self.ids[place]}
            found.append(Single(delivery, rows[place], lineage | shared | own))
        return found


class Single:
    """A row of a pack as the delivery that it would have been by itself.

    Args:
        delivery: of the pack.
        data: the row's payload.
        headers: the row's.
    """

    def __init__(self, delivery: Delivery, data: bytes, headers: Mapping[str, str]):
        self.data = data
        self.headers = dict(headers)
        self.subject = row_subject(delivery.subject) or delivery.subject
        self.size = len(data)
        self.reply = delivery.reply
        self.stream = delivery.stream
        self.sequence = delivery.sequence
        self.attempt = delivery.attempt
        self.pending = delivery.pending
        self.published = delivery.published

    def __repr__(self) -> str:
        return f"Single({self.subject} #{self.sequence}, {self.headers.get(MSG_ID)})"


def raw_rows(data: bytes) -> list[bytes]:
    """The payloads of a pack's rows, as their own messages would carry them.

    Raises:
        DecodeError: it is no pack that can be read.
    """
    return _raw(layout.read(data)[1])


def payload_of(data: bytes, identity: str) -> bytes | None:
    """The payload of one row of a pack, by its identity; None where it has none such.

    Raises:
        DecodeError: it is no pack that can be read.
    """
    lineages, view = layout.read(data)
    ids = lineages.identities()
    return _raw(view)[ids.index(identity)] if identity in ids else None


def _raw(view: memoryview) -> list[bytes]:
    decode = msgspec.json.decode if bytes(view[:1]) in _JSON else msgspec.msgpack.decode
    try:
        return [bytes(raw) for raw in decode(view, type=list[msgspec.Raw])]
    except Exception as error:  # noqa: BLE001 - whatever the bytes make a library raise
        raise DecodeError(f"the rows of the pack are no array of messages: {error}") from None
