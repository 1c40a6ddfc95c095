"""Lifetime: how a process that serves HTTP for an app begins, and how it ends.

It listens at once, and says until NATS is there what it waits for. When it is told to stop, streams
are told to come back, what is under way is answered, and only then what it answers with is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from mqinfer.errors import Unavailable
from mqinfer.starting import unless
from mqinfer.web.server import Refusal, plain, serve
from mqinfer.web.stopping import Stopping

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from mqinfer.ports import Broker
    from mqinfer.web.server import Listening


class Lifetime:
    """One server from its beginning to its end.

    Args:
        options: where to listen, and how.
        refusal: of what is no request.

    Attributes:
        url: where it serves, once it does.
        stopping: tells all who wait that it stops.
    """

    def __init__(self, options: Listening, refusal: Refusal = plain):
        self._options = options
        self._refusal = refusal
        self.url: str | None = None
        self.stopping = Stopping()
        self._stop = asyncio.Event()
        self._closed = asyncio.Event()  # all that was under way is answered

    def stop(self) -> None:
        """Begin an orderly stop."""
        self._stop.set()

    async def run(
        self,
        application: ASGIApp,
        opening: Callable[[AsyncExitStack], Awaitable[Broker]],
        started: Callable[[str], None],
    ) -> None:
        """Serve until `stop` is called.

        Args:
            application: answers, also before anything is open.
            opening: opens what it answers with on a stack that is closed at the end, and gives the
                connection without which nothing can be answered; cancelled when it stops before.
            started: called with the address once requests are answered.

        Raises:
            ConfigurationError: the address or the certificate cannot be used.
            Unavailable: NATS closed the connection for good.
        """

        def serving(url: str) -> None:
            self.url = url
            started(url)

        async def http() -> None:
            try:
                await serve(application, self._options, self._stop, serving, refusal=self._refusal)
            finally:
                self._stop.set()
                self._closed.set()

        async def end() -> None:
            await self._stop.wait()
            self.stopping.begin()

        async with asyncio.TaskGroup() as group:
            group.create_task(end(), name="stopping")
            group.create_task(http(), name="serve")
            group.create_task(self._open(opening), name="site")

    async def _open(self, opening: Callable[[AsyncExitStack], Awaitable[Broker]]) -> None:
        """Hold open what is answered with until all that is under way is answered."""
        async with AsyncExitStack() as stack:
            broker: Broker | None = None
            async with unless(self._stop):
                broker = await opening(stack)
            closed = asyncio.create_task(self._closed.wait(), name="closed")
            lost = None if broker is None else asyncio.create_task(broker.lost(), name="lost")
            waits = [closed, *filter(None, [lost])]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                if lost is not None and lost.done():
                    raise Unavailable("NATS closed the connection for good: start it again")
            finally:
                for one in waits:
                    one.cancel()
