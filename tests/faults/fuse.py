"""A fuse: it kills the process that it is in, at the n-th passage of one point."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


class Fuse:
    """Kills this process at the n-th passage of one point.

    Args:
        burning: called just before.
    """

    def __init__(self, burning: Callable[[], None] = lambda: None):
        self._burning = burning
        self._point: str | None = None
        self._left = 0

    def arm(self, text: str) -> None:
        """From now on the `n`-th passage of the point is the last ("n point")."""
        left, _, point = text.partition(" ")
        self._left, self._point = int(left), point

    def passes(self, point: str) -> None:
        """The process is at a point."""
        if self.reached(point):
            self.burn()

    def reached(self, point: str) -> bool:
        """Like `passes`, for a point whose death comes a little later."""
        if point != self._point:
            return False
        self._left -= 1
        return self._left <= 0

    def burn(self) -> None:
        """Die here."""
        self._burning()
        os.kill(os.getpid(), signal.SIGKILL)
