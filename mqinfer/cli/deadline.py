"""Deadline: a worker that was told to stop ends, whatever its handlers do.

An orderly stop is bounded by the worker itself, as long as its event loop turns. A handler that
blocks the loop keeps it from even hearing of the signal, and a lifespan may never end. So a thread
waits for the signal, too, and ends the process when its time is over.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from mqinfer.cli.errors import ExitCode

LOOK = 0.25  # seconds between looks
BLOCKED = 3.0  # seconds for which the loop must have been blocked beyond the grace
MOST = 60.0  # seconds beyond the grace; a stop that waits for a dead server takes less


class Deadline:
    """The end of one process.

    Args:
        grace: seconds that handlers may take to finish.
        blocked: who blocks the event loop for longer than so many seconds, or None.
        give_up: ends the process, for a reason.
    """

    def __init__(
        self,
        grace: float,
        blocked: Callable[[float], str | None],
        give_up: Callable[[str], object] | None = None,
    ):
        self._grace = grace
        self._blocked = blocked
        self._give_up = give_up or leave
        self._ended = threading.Event()
        self._read, self._write = os.pipe()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep it while inside."""
        thread = threading.Thread(target=self._wait, name="mqinfer-deadline", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            os.close(self._write)  # or the thread would read for ever

    def begin(self) -> None:
        """The time begins; may be called in a signal handler, for it takes no lock."""
        os.write(self._write, b"!")

    def _wait(self) -> None:
        told = os.read(self._read, 1)
        os.close(self._read)
        if told:
            self._look(time.monotonic() + self._grace)

    def _look(self, grace_ends: float) -> None:
        while not self._ended.wait(LOOK):
            over = time.monotonic() - grace_ends
            if over < 0:
                continue
            reason = self._blocked(BLOCKED)
            if reason is None and over > MOST:
                reason = f"it has not ended {MOST:g} s after its grace"
            if reason is not None:
                self._give_up(reason)
                return


def leave(reason: str) -> NoReturn:
    """End the process now: nobody could end what is left in it.

    What it holds and has not given back is redelivered after `ack_wait`.
    """
    import structlog  # the worker has it, and --help is to stay light

    log = structlog.get_logger("mqinfer.worker")
    log.error("the worker does not stop in order, and is ended", reason=reason)
    os._exit(ExitCode.FAILED)
