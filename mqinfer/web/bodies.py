"""Bodies: read within limits of bytes and time.

A client that says beforehand how much it sends is refused before it sends anything; one that sends
next to nothing, byte by byte, is not waited for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.requests import Request

PAUSE: Final = 10.0  # seconds in which something must come
SLOWEST: Final = 4096  # bytes a second, on the whole, after the first pauses


class Gone(Exception):
    """The client went away."""


class TooLarge(Exception):
    """The body is larger than it may be."""


class TooSlow(Exception):
    """The body comes too slowly: the connection is to be closed (408, RFC 9110)."""


async def chunks(
    request: Request,
    limit: int,
    *,
    pause: float = PAUSE,
    slowest: float = SLOWEST,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[bytes]:
    """The body as it comes.

    Args:
        request: whose.
        limit: bytes that are taken.
        pause: seconds in which something must come.
        slowest: bytes a second that must come on the whole.
        clock: monotonic seconds.

    Raises:
        TooLarge: it is larger, or says that it will be.
        TooSlow: nothing came for a pause, or too little on the whole.
        Gone: the client went away.
    """
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and (len(declared) > 15 or int(declared) > limit):
        raise TooLarge
    begun, size = clock(), 0
    while True:
        try:
            async with asyncio.timeout(pause):
                message = await request.receive()
        except TimeoutError:
            raise TooSlow from None
        if message["type"] == "http.disconnect":
            raise Gone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise TooLarge
        if chunk:
            yield chunk
        if not message.get("more_body", False):
            return
        if clock() - begun > 2 * pause + size / slowest:
            raise TooSlow
