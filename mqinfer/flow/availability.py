"""Availability: whether a server can be used now, and since when and why not.

Promise 3: while a server is down the stages that need it stop pulling and their work waits; it does
not fail. Whoever talks to a server reports here; whoever depends on it looks here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Availability:
    """Up or down, with a reason; starts up.

    Args:
        name: of the server, for the reasons ("triton", "clickhouse", "model leaf_detector").
        clock: monotonic seconds.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic):
        self.name = name
        self.reason: str | None = None
        self.since = clock()
        self._clock = clock
        self._up = asyncio.Event()
        self._up.set()

    @property
    def blocked(self) -> str | None:
        """Why the server cannot be used, in one line, or None when it can."""
        if self.reason is None:
            return None
        return f"{self.name} is not available for {self._clock() - self.since:.0f} s: {self.reason}"

    def down(self, reason: str) -> None:
        """The server does not answer; keeps the time of the first report of an outage."""
        if self.reason is None:
            self.since = self._clock()
        self.reason = reason
        self._up.clear()

    def up(self) -> None:
        """The server answered."""
        if self.reason is not None:
            self.since = self._clock()
        self.reason = None
        self._up.set()

    async def wait_up(self) -> None:
        """Return once the server is up; at once if it is."""
        await self._up.wait()

    def __repr__(self) -> str:
        return f"Availability({self.blocked or f'{self.name} up'})"
