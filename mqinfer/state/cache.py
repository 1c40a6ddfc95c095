"""Cache: states that this worker wrote or read last, for as long as nobody else may change them.

Whoever owns a partition alone has a *tenure* of it, another value whenever it comes to own it anew.
An entry counts within the tenure that it was made in, so that what another owner did meanwhile is
never missed. Where deliveries tell no tenure (None) nothing is kept. No I/O.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from mqinfer.ports import Delivery
    from mqinfer.state.record import Record

LIMIT = 64 * 1024 * 1024  # bytes of one stage in one process
_OVERHEAD = 400  # bytes of an entry beside its state and key: objects of Python


class Version(Struct, frozen=True):
    """A state as the bucket holds it.

    Attributes:
        revision: of its key; 0 where there is none.
        record: what it holds, or None.
    """

    revision: int
    record: Record | None


class _Entry(Struct, frozen=True):
    tenure: object
    version: Version
    until: float
    size: int


def tenure_of(delivery: Delivery) -> object:
    """The tenure in which a message was delivered; None where its partition has no owner."""
    return getattr(getattr(delivery, "partition", None), "tenure", None)


class Cache:
    """Versions by key, the least used ones dropped where they are too many.

    Args:
        limit: bytes of states and keys, with what Python adds.

    Attributes:
        size: bytes that are held.
    """

    def __init__(self, limit: int = LIMIT):
        self.size = 0
        self._limit = limit
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def get(self, key: str, tenure: object, now: float) -> Version | None:
        """What is kept of a key, if that still counts.

        Args:
            key: of the bucket.
            tenure: of the message that asks.
            now: monotonic seconds.
        """
        found = self._entries.get(key)
        if found is None:
            return None
        if tenure is None or found.tenure != tenure or now >= found.until:
            self.drop(key)
            return None
        self._entries.move_to_end(key)
        return found.version

    def put(self, key: str, tenure: object, version: Version, until: float = float("inf")) -> None:
        """Keep what was read or written.

        Args:
            key: of the bucket.
            tenure: of the message that was handled with it.
            version: of the state.
            until: monotonic seconds, when the bucket drops it.
        """
        self.drop(key)
        if tenure is None:
            return
        data = 0 if version.record is None else len(memoryview(version.record.data))
        size = data + len(key) + _OVERHEAD
        if size > self._limit:
            return
        self._entries[key] = _Entry(tenure, version, until, size)
        self.size += size
        while self.size > self._limit:
            _, oldest = self._entries.popitem(last=False)
            self.size -= oldest.size

    def drop(self, key: str) -> None:
        """Forget a key."""
        found = self._entries.pop(key, None)
        if found is not None:
            self.size -= found.size

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Cache({len(self)} states, {self.size:,} of {self._limit:,} bytes)"
