"""Bodies: read within limits of bytes and time, and within what this process has room for.

A client that says beforehand how much it sends is refused before it sends anything; one that sends
next to nothing, byte by byte, is not waited for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from mqinfer.gateway.problems import Problem, away, too_large

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

PAUSE: Final = 10.0  # seconds in which something must come
SLOWEST: Final = 4096  # bytes a second, on the whole, after the first pauses
ROOM: Final = 256 * 1024 * 1024  # bytes of bodies that are read at a time; each is held twice

Take = Callable[[int], None]


class Gone(Exception):
    """The client went away."""


class Room:
    """Bytes of bodies that this process holds.

    Args:
        limit: that it may hold at a time.
    """

    def __init__(self, limit: int = ROOM):
        self._limit = limit
        self.held = 0

    @contextmanager
    def share(self) -> Iterator[Take]:
        """A function that takes so many bytes more; they are given back at the end.

        It raises `Problem` where there is no room.
        """
        mine = 0

        def take(count: int) -> None:
            nonlocal mine
            if self.held + count > self._limit:
                raise away("too many large bodies are under way: send it again in a moment")
            self.held += count
            mine += count

        try:
            yield take
        finally:
            self.held -= mine


async def chunks(
    request: Request,
    limit: int,
    take: Take,
    *,
    pause: float = PAUSE,
    slowest: float = SLOWEST,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[bytes]:
    """The body as it comes.

    Args:
        request: whose.
        limit: bytes that are taken.
        take: of `Room.share`.
        pause: seconds in which something must come.
        slowest: bytes a second that must come on the whole.
        clock: monotonic seconds.

    Raises:
        Problem: it is too large, too slow, or there is no room for it.
        Gone: the client went away.
    """
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and (len(declared) > 15 or int(declared) > limit):
        raise too_large(limit)
    begun, size = clock(), 0
    while True:
        try:
            async with asyncio.timeout(pause):
                message = await request.receive()
        except TimeoutError:
            raise _slow() from None
        if message["type"] == "http.disconnect":
            raise Gone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        take(len(chunk))
        if chunk:
            yield chunk
        if not message.get("more_body", False):
            return
        if clock() - begun > 2 * pause + size / slowest:
            raise _slow()


async def whole(request: Request, limit: int, take: Take) -> bytes:
    """All of a body; arguments and errors as of `chunks`."""
    return b"".join([chunk async for chunk in chunks(request, limit, take)])


def _slow() -> Problem:
    return Problem(
        408,
        "slow",
        "the body comes too slowly: send it again",
        headers={"connection": "close"},
    )
