"""Lines: a long answer of JSON lines, as fast as its client reads it, and no longer than it does.

A few lines are held at a time. An answer that cannot be told to its end is broken off, so that
nobody takes it for whole: the connection closes without the end of the body.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

import structlog

from mqinfer.errors import MqinferError

log = structlog.get_logger("mqinfer.gateway")

MEDIA_TYPE: Final = "application/jsonl"
HEADERS: Final[Mapping[str, str]] = {
    "content-type": MEDIA_TYPE,
    "cache-control": "no-store",
    "x-accel-buffering": "no",
}
_SEND: Final = 30.0  # seconds that a client may take to read what was sent
_PIECE: Final = 64 * 1024  # bytes that are sent at a time

_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Lines:
    """An answer of lines.

    Args:
        lines: each with its end; closed at the end.
        status: of HTTP.
        headers: beside those that every such answer has, by their names in lower case.
        most: bytes that are sent of the lines; None is all.
    """

    def __init__(
        self,
        lines: AsyncIterator[bytes],
        status: int,
        headers: Mapping[str, str] | None = None,
        most: int | None = None,
    ):
        self.status_code = status
        self._lines = lines
        self._headers = {**HEADERS, **(headers or {})}
        self._left = sys.maxsize if most is None else most

    async def __call__(self, _scope: object, receive: _Receive, send: _Send) -> None:
        """Answer; an ASGI application."""
        headers = [(name.encode(), value.encode()) for name, value in self._headers.items()]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        gone = asyncio.create_task(_gone(receive), name="gone")

        async def put(data: bytes, more: bool = True) -> None:
            async with asyncio.timeout(_SEND):
                await send({"type": "http.response.body", "body": data, "more_body": more})

        held = bytearray()
        try:
            async for line in self._lines:
                held += line[: self._left]
                self._left -= min(len(line), self._left)
                if len(held) >= _PIECE:
                    await put(bytes(held))
                    held.clear()
                    await asyncio.sleep(0)  # the others' turn: what is sent may not wait at all
                    if gone.done():
                        return
                if not self._left:
                    break
            await put(bytes(held), more=False)
        except TimeoutError:
            log.info("an answer is broken off", reason=f"nobody reads it for {_SEND:g} s")
        except MqinferError as error:
            log.warning("an answer is broken off", reason=str(error))
        finally:
            gone.cancel()
            close = getattr(self._lines, "aclose", None)
            if close is not None:
                await close()


async def _gone(receive: _Receive) -> None:
    """Return when the client went away."""
    while (await receive())["type"] != "http.disconnect":
        pass
