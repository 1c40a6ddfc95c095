"""Stopping: told at once to all who wait, when the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Stopping:
    """Whether the server stops, and who is to be told.

    Each who waits has a future of its own: to leave one that ten thousand share, all of them would
    be looked through.

    Attributes:
        begun: whether it stops.
    """

    def __init__(self) -> None:
        self.begun = False
        self._waiting: set[asyncio.Future[None]] = set()

    def begin(self) -> None:
        """Tell all who wait, and who comes later."""
        self.begun = True
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    @contextmanager
    def told(self) -> Iterator[asyncio.Future[None]]:
        """Inside, a future that is done when the server stops."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.begun:
            future.set_result(None)
        self._waiting.add(future)
        try:
            yield future
        finally:
            self._waiting.discard(future)
            future.cancel()
