"""Newest: a stream read backwards, a page at a time.

JetStream reads forwards only. So stretches of sequences are read, each further back and twice as
long as the one before, until a page is full. The next page begins where this one has stopped
looking: a list has a beginning, however many come meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from mqinfer.streams import Stored, Streams

_T = TypeVar("_T")
LOOKED: Final = 20_000  # messages that one page looks through, at most


@dataclass(frozen=True, slots=True)
class Newest(Generic[_T]):
    """A page.

    Attributes:
        found: what was taken, the newest first.
        older: where the next page begins: at what lies before this sequence; None: nothing does.
        looked: messages that were looked through.
    """

    found: tuple[_T, ...]
    older: int | None
    looked: int


async def newest(
    streams: Streams,
    stream: str,
    take: Callable[[Stored], _T | None],
    *,
    subject: str = ">",
    before: int | None = None,
    count: int = 50,
) -> Newest[_T]:
    """The newest messages of a stream that are taken.

    Args:
        streams: that are read.
        stream: its name; one that is not there has none.
        take: gives what is shown of a message, or None.
        subject: of those that are looked at.
        before: a sequence that they lie before; None is the end.
        count: how many.

    Raises:
        Unavailable: the server does not answer.
    """
    info = await streams.stream_info(stream)
    if info is None:
        return Newest((), None, 0)
    state = info["state"]
    first, end = int(state["first_seq"]), int(state["last_seq"])
    end = end if before is None else min(end, before - 1)
    found: list[tuple[int, _T]] = []
    looked, width = 0, 2 * count
    while end >= first and len(found) <= count and looked < LOOKED:
        start = max(first, end - width + 1)
        stretch: list[tuple[int, _T]] = []
        async for stored in streams.messages(stream, subject, first=start, last=end):
            looked += 1
            taken = take(stored)
            if taken is not None:
                stretch.append((stored.sequence, taken))
        found += reversed(stretch)
        end, width = start - 1, 2 * width
    if len(found) > count:
        found = found[:count]
        return Newest(tuple(one for _, one in found), found[-1][0], looked)
    return Newest(tuple(one for _, one in found), end + 1 if end >= first else None, looked)
