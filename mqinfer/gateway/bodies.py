"""Bodies: read within what this process has room for; too large or too slow is a problem."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from mqinfer.gateway.problems import Problem, away, too_large
from mqinfer.web import bodies
from mqinfer.web.bodies import PAUSE, SLOWEST
from mqinfer.web.bodies import Gone as Gone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

ROOM: Final = 256 * 1024 * 1024  # bytes of bodies that are read at a time; each is held twice

Take = Callable[[int], None]


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
    try:
        read = bodies.chunks(request, limit, pause=pause, slowest=slowest, clock=clock)
        async for chunk in read:
            take(len(chunk))
            yield chunk
    except bodies.TooLarge:
        raise too_large(limit) from None
    except bodies.TooSlow:
        raise Problem(
            408,
            "slow",
            "the body comes too slowly: send it again",
            headers={"connection": "close"},
        ) from None


async def whole(request: Request, limit: int, take: Take) -> bytes:
    """All of a body; arguments and errors as of `chunks`."""
    return b"".join([chunk async for chunk in chunks(request, limit, take)])
