"""Ahead: how many messages a stage may hold beyond what its handlers take at once. Pure.

What waits here could be another worker's. So it follows from how fast the handlers really are: no
more than they finish in the time that asking for more takes. It begins with next to nothing, is
doubled whenever a handler has to wait though the stream has more, and is cut back to the measured
rate when the handlers slow down. What they had taken while they were quick, and would not begin
with for long, is given back then.
"""

from __future__ import annotations

# Seconds of work that may wait: a few round trips to the server on a busy machine, and little
# beside a second, in which another worker that joins is to have its share.
HORIZON = 0.25
# Seconds of work beyond that which are given back, once it has been so many seconds: the pauses of
# a busy machine are shorter.
LONG = 0.75
# The share of each new look at the rate.
SMOOTHING = 0.5


class Ahead:
    """The allowance of one stage in one process.

    Args:
        handlers: messages that all handlers take at once.
        most: never more than this waits beside them.
    """

    def __init__(self, handlers: int, most: int):
        self._handlers = handlers
        self._most = max(0, most)
        self._extra = min(1, self._most)
        self._rate = 0.0
        self._since: float | None = None
        self._long_since: float | None = None

    @property
    def allowed(self) -> int:
        """Messages that may be asked for, wait or be handled."""
        return self._handlers + self._extra

    def starved(self) -> None:
        """A handler waits although the stream has more."""
        self._extra = min(self._most, 2 * self._extra + 1)

    def measured(self, handled: int, now: float) -> None:
        """A look at the work.

        Args:
            handled: messages since the last look.
            now: monotonic seconds.
        """
        since, self._since = self._since, now
        if since is None or now <= since:
            return
        self._rate += SMOOTHING * (handled / (now - since) - self._rate)
        self._extra = min(self._extra, max(1, int(self._rate * HORIZON)), self._most)

    def too_many(self, beyond: int, now: float) -> int:
        """Messages to give back.

        Args:
            beyond: messages here beyond what is allowed.
            now: monotonic seconds.
        """
        if beyond <= self._rate * LONG:
            self._long_since = None
            return 0
        if self._long_since is None:
            self._long_since = now
        return beyond if now - self._long_since >= LONG else 0

    def __repr__(self) -> str:
        return f"Ahead({self._extra} beside {self._handlers}, {self._rate:.1f}/s)"
