"""SIGTERM and SIGINT of a process that ends in order, from its first moment to its last.

The first signal asks the process to end, a second one ends it. What the first one does depends on
how far the process is: before it has begun anything it leaves at once (`Stopped`, also out of an
import that takes long); then it is remembered until there is an event loop with work that can be
stopped; and when that has ended there is nothing left to do.
"""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

NUMBERS = (signal.SIGTERM, signal.SIGINT)
INTERRUPTED = 128 + signal.SIGINT


class Stopped(SystemExit):
    """A signal came before anything had begun: exit code 0."""


class _Signals:
    """The signals that came, and what they do.

    Attributes:
        count: how many came.
        first: what the first one does.
        second: what every other one does.
    """

    def __init__(self) -> None:
        self.count = 0
        self.first: Callable[[], object] = self.leave
        self.second: Callable[[], object] = self.end

    def received(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        (self.first if self.count == 1 else self.second)()

    def leave(self) -> None:
        raise Stopped(0)

    def keep(self) -> None:
        pass

    def end(self) -> None:
        os._exit(INTERRUPTED)


_process: _Signals | None = None


def listen() -> None:
    """Take the signals of this process for all its life; the first one raises `Stopped` here."""
    global _process
    _process = _Signals()
    for number in NUMBERS:
        signal.signal(number, _process.received)
    atexit.register(_ignore)


def _ignore() -> None:
    """All is done: Python, while it takes itself apart, would die of a signal instead of ending."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)


def heed() -> None:
    """Look whether a signal came after `listen`, and what it interrupted went on all the same.

    Raises:
        Stopped: so it is.
    """
    if _process is not None and _process.count:
        raise Stopped(0)


def hold() -> None:
    """From now on remember a signal for `handed_to`, and raise nothing.

    Raises:
        Stopped: one came already.
    """
    if _process is not None:
        _process.first = _process.keep
    heed()


@contextmanager
def handed_to(
    stop: Callable[[], object],
    abort: Callable[[], object],
    at_once: Callable[[], object] = lambda: None,
) -> Iterator[None]:
    """Inside, the first signal calls `stop` on the running event loop, every other one `abort`.

    One that was held counts. `at_once` is called by the first, in the signal's handler, whatever
    the loop does.
    """
    import asyncio  # which at the top would double the time until signals are taken

    loop = asyncio.get_running_loop()
    signals = _process or _Signals()
    # Not the loop's own handlers: between those and what was there before a signal could be lost,
    # or count twice.
    before = {number: signal.getsignal(number) for number in NUMBERS}
    signals.second = lambda: loop.call_soon_threadsafe(abort)
    signals.first = lambda: (at_once(), loop.call_soon_threadsafe(stop))
    if signals.count:
        at_once()
        stop()
    for number in NUMBERS:
        signal.signal(number, signals.received)
    try:
        yield
    finally:
        signals.first, signals.second = signals.keep, signals.end
        for number, handler in before.items():
            signal.signal(number, handler)
