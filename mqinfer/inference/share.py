"""Share: the part of a model's request slots that a run uses, to leave the rest to live work. Pure.

A request that is in execution holds up what comes behind it, so a share bounds three things: how
many requests are under way, how many items each carries (a live call waits for the whole of the
one before it), and, where the share is less than one slot, how long that slot is used.
"""

from __future__ import annotations

import math

# A rest is never longer, in seconds: one request that took minutes must not stop a run for hours.
MAX_REST = 60.0
# 0.29 * 100 is a little less than 29.
_ROUNDING = 1e-9


class Share:
    """A part of the request slots of one model.

    Args:
        part: more than 0, at most 1.

    Raises:
        ValueError: it is not.
    """

    def __init__(self, part: float):
        if not 0 < part <= 1:
            raise ValueError(f"a share is more than 0 and at most 1, not {part}")
        self.part = part
        self._until = -math.inf

    def slots(self, limit: int, now: float) -> int:
        """Requests that may be under way: at least one, but none during a rest.

        Args:
            limit: requests that may be under way without a share.
            now: by the clock of the other calls.
        """
        if now < self._until:
            return 0
        return max(1, math.floor(self.part * limit + _ROUNDING))

    def items(self, most: int) -> int:
        """Items that a request may carry.

        Args:
            most: without a share.
        """
        return max(1, math.ceil(self.part * most - _ROUNDING))

    def used(self, seconds: float, limit: float, now: float) -> None:
        """A request has ended; where the share is less than a slot, the slot rests.

        Args:
            seconds: that it took.
            limit: requests that may be under way without a share; less than 1 is a part of the
                time of one.
            now: by the clock of the other calls.
        """
        slots = self.part * limit
        if slots < 1 - _ROUNDING:
            rest = min(seconds * (1 / slots - 1), MAX_REST)
            self._until = max(self._until, now + rest)

    def rest(self, now: float) -> float:
        """Seconds until the rest is over; 0.0 when there is none."""
        return max(0.0, self._until - now)

    def __repr__(self) -> str:
        return f"Share({self.part:g})"
