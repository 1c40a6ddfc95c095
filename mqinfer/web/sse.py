"""Server-sent events: what there is to tell, as it comes (WHATWG HTML, 9.2).

Each event has an id to go on behind. A stream that ends before the request does says so by an event
of its own, `reconnect`: a server that stops closes its streams without a word, and a client would
only find out when it next hears nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from mqinfer.errors import MqinferError

if TYPE_CHECKING:
    from mqinfer.web.stopping import Stopping

log = structlog.get_logger("mqinfer.web")

HEARTBEAT: Final = 15.0  # seconds; proxies close what is silent for a minute
_SEND = 30.0  # seconds that a client may take to read what was sent
_RETRY = (500, 3000)  # milliseconds between which clients come back, so that not all do at once

_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Counting(Protocol):
    """Where streams that are open are counted."""

    streams: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One event.

    Attributes:
        event: its name.
        data: one line of JSON.
        id: to go on behind it.
        last: whether the stream ends with it.
    """

    event: str
    data: bytes
    id: str | None = None
    last: bool = False

    def bytes(self) -> bytes:
        """As it is sent."""
        head = f"event: {self.event}\n"
        if self.id is not None:
            head += f"id: {self.id}\n"
        return head.encode() + b"data: " + self.data + b"\n\n"


class EventStream:
    """An answer that is a stream of events.

    Args:
        frames: what is told; closed at the end.
        stopping: of the server.
        opened: where the streams that are open are counted.
        heartbeat: seconds between signs of life.
    """

    status_code = 200

    def __init__(
        self,
        frames: AsyncIterator[Frame],
        stopping: Stopping,
        *,
        opened: Counting,
        heartbeat: float = HEARTBEAT,
    ):
        self._frames = frames
        self._stopping = stopping
        self._opened = opened
        self._heartbeat = heartbeat

    async def __call__(self, _scope: object, receive: _Receive, send: _Send) -> None:
        """Answer; an ASGI application."""
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),  # nginx would keep it back
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        gone = asyncio.create_task(_gone(receive), name="gone")
        self._opened.streams += 1
        try:
            # A timeout is of a client that does not read.
            with contextlib.suppress(TimeoutError), self._stopping.told() as stop:
                await self._tell(send, gone, stop)
        finally:
            self._opened.streams -= 1
            gone.cancel()

    async def _tell(
        self, send: _Send, gone: asyncio.Task[None], stop: asyncio.Future[None]
    ) -> None:
        async def put(data: bytes, more: bool = True) -> None:
            async with asyncio.timeout(_SEND):
                await send({"type": "http.response.body", "body": data, "more_body": more})

        await put(b"retry: %d\n\n" % random.randint(*_RETRY))
        waits: set[asyncio.Future[Any]] = {gone, stop}
        following: asyncio.Future[Frame] = asyncio.ensure_future(_next(self._frames))
        try:
            while True:
                await asyncio.wait(
                    waits | {following},
                    timeout=self._heartbeat,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if gone.done():
                    return
                if following.done():
                    frame = _result(following)
                    if frame is None:
                        await put(_reconnect(), more=False)
                        return
                    await put(frame.bytes(), more=not frame.last)
                    if frame.last:
                        return
                    following = asyncio.ensure_future(_next(self._frames))
                elif not stop.done():
                    await put(b":\n\n")
                if stop.done():
                    await put(_reconnect(), more=False)
                    return
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            close = getattr(self._frames, "aclose", None)
            if close is not None:
                await close()


def _reconnect() -> bytes:
    return b"retry: %d\nevent: reconnect\ndata: {}\n\n" % random.randint(*_RETRY)


async def _next(frames: AsyncIterator[Frame]) -> Frame:
    return await anext(frames)


def _result(following: asyncio.Future[Frame]) -> Frame | None:
    """The next event; None where there is none, and the client is to come back."""
    try:
        return following.result()
    except StopAsyncIteration:
        return None
    except MqinferError as error:
        log.info("a stream of events ends before its time", reason=str(error))
        return None


async def _gone(receive: _Receive) -> None:
    """Return when the client went away."""
    while (await receive())["type"] != "http.disconnect":
        pass
