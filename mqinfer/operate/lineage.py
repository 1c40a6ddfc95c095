"""Lineage: the messages that rows were made from, as far as the stream still has them.

A row names its ancestors by their ids. An id that is a place in the stream leads to the message at
once; any other one is looked for among the messages that were stored before the row, since nobody
keeps where an id is: a bounded number of them, for all rows together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mqinfer.blobfields import blob_columns, can_hold_blobs
from mqinfer.codec import Codec, blobs_in
from mqinfer.errors import DecodeError
from mqinfer.identity import CONTENT_TYPE, input_id

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.blob import Blob
    from mqinfer.message import Message
    from mqinfer.streams import Stored, Streams

_BACK: Final = 400  # messages before a row that are looked through
_MOST: Final = 2_000  # for all rows together
_APART: Final = 400  # sequences between rows that are looked for in one go


@dataclass(frozen=True, slots=True)
class Held:
    """A blob of a message.

    Attributes:
        sequence: of the message in the app's stream.
        kind: name of its type.
        field: that it is in.
        number: which of the message's blobs it is, from 0 on.
        blob: itself, with its bytes where they ride in the message.
    """

    sequence: int
    kind: str
    field: str
    number: int
    blob: Blob


@dataclass(frozen=True, slots=True)
class Made:
    """What is known of how a row was made.

    Attributes:
        ancestors: ids of the messages, the first input first, the parent last.
        sequence: of the row's own message.
    """

    ancestors: Sequence[str]
    sequence: int


class Lineage:
    """The messages of one app, looked for by their ids.

    Args:
        app: whose.
        streams: where they are.
    """

    def __init__(self, app: App, streams: Streams):
        self._app = app
        self._streams = streams
        self._codec = Codec()

    async def blobs(self, rows: Sequence[Made]) -> list[tuple[Held, ...]]:
        """For each row the blobs of the nearest ancestor that has any and is still there.

        Raises:
            Unavailable: NATS does not answer.
        """
        known = await self._messages(rows)
        found = []
        for row in rows:
            held = (self.held(known[one]) for one in reversed(row.ancestors) if one in known)
            found.append(next((blobs for blobs in held if blobs), ()))
        return found

    async def of_message(self, sequence: int) -> tuple[Held, ...]:
        """The blobs of one message; none where it is gone, or is none of ours.

        Raises:
            Unavailable: NATS does not answer.
        """
        stored = await self._streams.message(self._app.name, sequence)
        return () if stored is None else self.held(stored)

    def held(self, stored: Stored) -> tuple[Held, ...]:
        """The blobs of a stored message; none where it cannot be read."""
        kind = self._app.kind_of(stored.subject)
        if kind is None or not can_hold_blobs(kind):
            return ()
        try:
            message = self._codec.decode(kind, stored.data, stored.headers.get(CONTENT_TYPE))
        except DecodeError:
            return ()
        return tuple(
            Held(stored.sequence, kind.__name__, name, number, blob)
            for number, (name, blob) in enumerate(_of(message))
        )

    async def _messages(self, rows: Sequence[Made]) -> dict[str, Stored]:
        """The ancestors that can be found, by id."""
        found: dict[str, Stored] = {}
        wanted = {one for row in rows for one in row.ancestors}
        for identity in sorted(wanted):
            place = self._place(identity)
            if place is None:
                continue
            stored = await self._streams.message(self._app.name, place)
            # A stream that was made anew has counted from 1 again, and names are the same.
            if stored is not None and self._id(stored) == identity:
                found[identity] = stored
        left = [row for row in rows if not any(one in found for one in row.ancestors)]
        wanted = {one for row in left for one in row.ancestors if self._place(one) is None}
        subjects = tuple(self._subjects()) if wanted else ()
        budget = _MOST
        for first, last in _ranges(left):
            for subject in subjects:
                async for stored in self._streams.messages(
                    self._app.name, subject, first=first, last=last
                ):
                    budget -= 1
                    if (identity := self._id(stored)) in wanted:
                        found[identity] = stored
                    if not budget:
                        return found
        return found

    def _subjects(self) -> Iterator[str]:
        """Of the types that may hold blobs, and that something is made from."""
        kinds = {stage.reads for stage in self._app.stages.values()}
        for kind in sorted(kinds, key=lambda one: one.__name__):
            if blob_columns(kind):
                yield from self._app.filters(kind)

    def _place(self, identity: str) -> int | None:
        """The place in the stream that an id is; None for any other id."""
        stream, colon, number = identity.rpartition(":")
        if not colon or stream != self._app.name or not number.isascii() or not number.isdigit():
            return None
        return int(number) if 0 < len(number) < 19 else None

    def _id(self, stored: Stored) -> str:
        return input_id(stored.headers, self._app.name, stored.sequence)


def _of(message: Message) -> Iterator[tuple[str, Blob]]:
    for name in message.__struct_fields__:
        for blob in blobs_in(getattr(message, name), message.__mqinfer__.wire)[0]:
            yield name, blob


def _ranges(rows: Iterable[Made]) -> Iterator[tuple[int, int]]:
    """The stretches of the stream that lie before rows, the newest first; near ones as one."""
    places = sorted({row.sequence for row in rows if row.sequence > 0}, reverse=True)
    while places:
        last = first = places.pop(0)
        while places and first - places[0] <= _APART and last - places[0] < _MOST:
            first = places.pop(0)
        yield max(1, first - _BACK), last
