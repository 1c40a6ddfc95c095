"""Share: the messages, or the memory, after which a process ends in order and another begins.

For what grows in a process and nobody finds: a library that leaks, a cache without a bound. The
worker stops as it does by a signal, so that nothing is lost or handled twice, and leaves with
`ExitCode.AGAIN`, by which its supervisor knows that another is to begin. Each process has a bound
of its own, up to a tenth above the one that was asked for, so that they do not all end at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mqinfer.running import Worker

EVERY = 0.5  # seconds between two looks


@dataclass
class Share:
    """What one process is given.

    Attributes:
        messages: that it handles; None is without a bound.
        memory: bytes that it may have; None is without a bound.
        had: whether it had its share.
    """

    messages: int | None = None
    memory: int | None = None
    had: bool = False
    _more: float = field(default_factory=lambda: 1 + random.random() / 10)

    def __bool__(self) -> bool:
        return self.messages is not None or self.memory is not None

    def arguments(self) -> list[str]:
        """What a child is given of it."""
        found = [] if self.messages is None else [f"--max-messages={self.messages}"]
        return found if self.memory is None else [*found, f"--max-memory={self.memory}"]

    @contextlib.asynccontextmanager
    async def watched(self, running: Worker) -> AsyncIterator[None]:
        """Inside, the worker is stopped when it had its share."""
        watching = asyncio.create_task(self._watch(running), name="share")
        try:
            yield
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

    async def _watch(self, running: Worker) -> None:
        while (why := self._reached(running)) is None:  # noqa: ASYNC110 - memory tells nobody
            await asyncio.sleep(EVERY)
        import structlog  # which loads what prints, and `--help` need not wait for

        structlog.get_logger("mqinfer.worker").info("ends to begin anew", why=why)
        self.had = True
        running.stop()

    def _reached(self, running: Worker) -> str | None:
        handled = 0 if running.engine is None else running.engine.handled
        if self.messages is not None and handled >= self.messages * self._more:
            return f"{handled:,} messages (--max-messages {self.messages:,})"
        if self.memory is not None and (used := resident()) >= self.memory * self._more:
            return f"{used:,} bytes of memory (--max-memory {self.memory:,})"
        return None


def resident() -> int:
    """Bytes of memory that this process has; its most so far where the system says no more."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
