"""What a worker holds of a consumer, by what the server says of it."""

from __future__ import annotations

from collections import deque


class Held:
    """The most that was held.

    The server may still count what was acknowledged when more was asked for: what is held is what
    several looks in a row show.

    Attributes:
        most: messages.
    """

    def __init__(self) -> None:
        self.most = 0
        self._looks = deque([0], maxlen=3)

    def look(self, unacknowledged: int) -> None:
        """Take in what the server says now."""
        self._looks.append(unacknowledged)
        self.most = max(self.most, min(self._looks))
