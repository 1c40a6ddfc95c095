"""Seldom: a warning that may come ten thousand times is written once a second, with how many."""

from __future__ import annotations

import asyncio
from typing import Any

_SECONDS = 1.0


class Seldom:
    """One warning, written at once, and again where it came meanwhile.

    It belongs to the event loop that it is first used on.

    Args:
        log: where to; a structlog logger.
        event: the text.
    """

    def __init__(self, log: Any, event: str):
        self._log = log
        self._event = event
        self._more = 0
        self._last: dict[str, Any] = {}
        self._waits: asyncio.TimerHandle | None = None

    def warn(self, **facts: Any) -> None:
        """Write it, or count it where it was written within the last second."""
        if self._waits is None:
            self._log.warning(self._event, **facts)
            self._waits = asyncio.get_running_loop().call_later(_SECONDS, self._again)
        else:
            self._more += 1
            self._last = facts

    def tell(self) -> None:
        """Write what was counted and not written: with the facts of the last one, and how many."""
        if self._waits is not None:
            self._waits.cancel()
            self._waits = None
        if self._more:
            self._log.warning(self._event, **self._last, times=self._more)
            self._more = 0

    def _again(self) -> None:
        more = self._more
        self.tell()
        if more:
            self._waits = asyncio.get_running_loop().call_later(_SECONDS, self._again)
