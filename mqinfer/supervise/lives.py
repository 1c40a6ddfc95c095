"""Lives: how a process ended, and when the next one takes its place. Pure: no clock of its own."""

from __future__ import annotations

import signal

from mqinfer.backoff import Backoff

_AGAIN = Backoff(initial=0.5, maximum=30.0)
_STEADY_SECONDS = 10.0  # a process that lived this long starts its pauses anew


class Lives:
    """One place for a process; another one takes it, after a pause, when that has crashed.

    Attributes:
        crashes: so many one after another, each within seconds of its start.
        again: when to start the next one, by the clock that is handed in; None is not any more,
            or not now as it runs.
    """

    def __init__(self) -> None:
        self.crashes = 0
        self.again: float | None = 0.0
        self._began = 0.0

    def begin(self, now: float) -> None:
        """A process takes the place."""
        self._began = now
        self.again = None

    def crash(self, now: float) -> float:
        """It ended, and nobody had asked it to; the pause in seconds until the next one."""
        self.crashes = 1 if now - self._began > _STEADY_SECONDS else self.crashes + 1
        pause = _AGAIN.delay(self.crashes)
        self.again = now + pause
        return pause

    def end(self) -> None:
        """No other one takes the place."""
        self.again = None

    def due(self, now: float) -> bool:
        """Whether the next one is to be started."""
        return self.again is not None and self.again <= now


def ended_by(code: int) -> str | None:
    """Name the signal that ended a process; None if it ended by itself.

    Args:
        code: as `subprocess` gives it, below zero for a signal.
    """
    try:
        return signal.Signals(-code).name
    except ValueError:
        return None
