"""Share: how many partitions a worker may own, without a leader. Pure.

Every worker of a stage leaves one request open at a consumer that never has a message, so the
server's count of its requests is the number of workers; whoever owns less than its share leaves one
at a second such consumer. Each asks for tokens up to its share, and gives some back when it owns
more. Where a count is wrong for a moment a partition moves for nothing, and no more: the order does
not depend on it.
"""

from __future__ import annotations

from collections import deque

REMEMBERED = 3  # looks: a worker's request is renewed, and not there for a moment


class Share:
    """A worker's fair share of the partitions.

    Args:
        partitions: of the stage.
    """

    def __init__(self, partitions: int):
        self._partitions = partitions
        self._workers: deque[int] = deque(maxlen=REMEMBERED)
        self._wanted = self._wanted_before = False

    def seen(self, workers: int, wanting: int) -> None:
        """The server was asked.

        Args:
            workers: that there are.
            wanting: others of them, that own less than their share.
        """
        self._workers.append(workers)
        self._wanted_before, self._wanted = self._wanted, wanting > 0

    @property
    def least(self) -> int:
        """Partitions that each worker is to own."""
        return self._partitions // max(1, *self._workers, 1)

    @property
    def most(self) -> int:
        """Partitions that a worker may own, where they are not a multiple of the workers."""
        return -(-self._partitions // max(1, *self._workers, 1))

    def wants(self, owned: int) -> bool:
        """Whether others are to be told that this worker owns too little."""
        return owned < self.least

    def more(self, owned: int) -> int:
        """Partitions to ask for; those that are left over only when nobody has too few."""
        return max(0, (self.least if self._wanted else self.most) - owned)

    def less(self, owned: int, random: float) -> int:
        """Partitions to give away.

        Args:
            owned: now.
            random: in [0, 1): not all who might give one to a worker that has too few are to do so.
        """
        if owned > self.most:
            return owned - self.most
        return int(owned > self.least and self._wanted and self._wanted_before and random < 0.5)

    def __repr__(self) -> str:
        return f"Share({self.least} to {self.most} of {self._partitions})"
