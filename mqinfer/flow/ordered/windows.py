"""Windows: how many messages of each partition may be here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mqinfer.flow.ordered.places import Quota
from mqinfer.flow.slots import Slots

if TYPE_CHECKING:
    from mqinfer.flow.ordered.partition import Partition
    from mqinfer.stage import Limits


class Windows(Slots):
    """Slots in which each partition has a part of its own: a slow key must not stop the others.

    Args:
        partitions: of the stage, whoever owns them.
        owned: those that are owned here, now.
        limits: of the stage: each partition has its part of `max_in_flight` and `max_bytes`, but at
            least one message.
        largest: the largest message there can be, in bytes.
    """

    adaptive = False  # what waits here is nobody else's to handle: its partition is owned

    def __init__(
        self,
        partitions: int,
        owned: Callable[[], Sequence[Partition]],
        limits: Limits,
        largest: int,
    ):
        self.quota = Quota(
            max(1, limits.max_in_flight // partitions),
            max(largest, limits.max_bytes // partitions),
            largest,
        )
        self._owned = owned
        super().__init__(self.quota.messages * partitions, self.quota.size * partitions, largest)

    def available(self) -> tuple[int, int] | None:
        """What all partitions may ask for together."""
        messages = size = 0
        for partition in self._owned():
            if wanted := partition.wanted(self.quota):
                messages += wanted[0]
                size += wanted[1]
        return (messages, size) if messages else None

    @property
    def half_free(self) -> bool:
        """A partition asks when half of its window is free, without waiting for the others."""
        return True
