"""Table: the stream of timers as it is needed, and how one place of it is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mqinfer.identity import header_line
from mqinfer.timers.places import ORDER, Entry, Order, format_order, later_of, stands

if TYPE_CHECKING:
    from mqinfer.ports import StreamSpec


class Table(Protocol):
    """The timers of one app. Methods raise `Unavailable` where the server does not answer."""

    async def ensure(self, spec: StreamSpec) -> None:
        """Create the stream, or change it to match.

        Raises:
            ConfigurationError: this server keeps no timers.
            ConflictError: the stream differs in what cannot be changed.
        """

    async def newest(self, place: str, kind: str | None = None) -> Entry | None:
        """The newest message of a place, or of one kind in it."""

    async def put(self, place: str, end: str, header: bytes, payload: bytes, after: int) -> bool:
        """Store a message in a place whose newest has the sequence `after` (0: it is empty).

        False if it has another one, also where this very message was stored before and the answer
        was lost. An outage is waited out.

        Args:
            place: as `places.place` makes it.
            end: what the subject has behind the place.
            header: a block without a condition.
            payload: of the message.
            after: a sequence.

        Raises:
            PublishError: the message is too large, or the stream refuses it for good.
        """

    async def drop(self, subject: str, before: int | None = None) -> None:
        """Delete what lies under a subject (wildcards); with `before`, below that sequence."""


async def write(
    table: Table,
    place: str,
    end: str,
    header: bytes,
    payload: bytes,
    *,
    operation: str,
    order: Order | None,
    once: bool = False,
    empty: bool = True,
) -> bool:
    """Make a message the newest of its place, if it is its turn; what it replaces never comes.

    Whoever dies on the way is asked again, by a redelivery or the next look, and goes on from
    whatever is there.

    Args:
        table: of the app.
        place: in it.
        end: of the subject.
        header: of the message, with `operation` in it, and `order` where it is not None.
        payload: of the message.
        operation: that it is.
        order: of it; None is after all that is there, and becomes the next one.
        once: whether it is not written where an earlier one has come already.
        empty: whether the place is probably empty, so that a first look is spared.

    Returns:
        Whether it was written now. False: it was before, or a later one counts, or one has come.

    Raises:
        PublishError: the message is too large, or refused.
        Unavailable: the server does not answer; it may have been written.
    """
    first = header if order is not None else _after(None, header)
    if empty and await table.put(place, end, first, payload, 0):
        return True
    while True:
        newest = waiting = await table.newest(place)
        if newest is not None and newest.kind == "fired":
            # It may have come before what it replaced was dropped, or as it was replaced itself.
            waiting = None if once else await table.newest(place, "at")
        last = later_of(newest, waiting)
        if last is not None and stands(last, operation, order, once=once):
            # If it is ours, whoever wrote it may have died before the next step.
            if last.operation == operation and waiting is not None:
                earlier = waiting.order < last.order
                if earlier or waiting.operation == operation:
                    await table.drop(f"{place}.at.*", before=last.sequence)
            return False
        block = header if order is not None else _after(last, header)
        if await table.put(place, end, block, payload, 0 if newest is None else newest.sequence):
            if waiting is not None:  # a cancel may have died before it dropped what it cancels
                await table.drop(f"{place}.at.*", before=waiting.sequence + 1)
            return True


def _after(last: Entry | None, header: bytes) -> bytes:
    """A block with the order of what is asked for after the last word of a place."""
    era, number = (0, 0) if last is None else last.order
    return header[:-2] + header_line(ORDER, format_order((era, number + 1))).encode() + b"\r\n"
