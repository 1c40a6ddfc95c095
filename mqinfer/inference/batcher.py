"""Batcher: which model calls go out together, and when; pure decisions, no I/O, no clock read.

One `Batcher` holds the calls of one model and version. A call goes out at once while a request slot
is free; while all slots are busy calls gather; when a slot frees, everything gathered with the
oldest call's signature goes as one request, up to the model's batch size and a byte bound. There is
no timer: an idle model adds no latency and a busy one fills its batches by itself.

Live calls go before bulk ones (those of a replay, or of a handle that says so), in requests of
their own. Of the requests that are taken while both wait, one in four is of bulk calls, so that
they are not starved. A part of the room is for live calls alone.

Keeps the part of promise 3 that memory stays bounded: `add` refuses what does not fit, and the
caller waits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

MIB = 1024 * 1024
# While live calls wait, one request of so many is for bulk calls.
BULK_EVERY = 4
# The part of the room that bulk calls may take.
BULK_ROOM = 0.5


@dataclass(slots=True, eq=False)
class Entry(Generic[T]):
    """One call in a batcher.

    Attributes:
        item: the caller's own object.
        signature: only calls of equal signature share a request.
        size: bytes of its inputs.
        ticket: order of arrival; kept when the call is put back.
        added: when it arrived, by the caller's clock.
        batch_limit: the most calls its next request may hold; None is the model's bound. Calls
            whose request ended without an answer are suspects: they go again in smaller requests,
            with no other beside, so that one that brings the model down is found.
        bulk: whether live calls go before it.
    """

    item: T
    signature: Hashable
    size: int
    ticket: int
    added: float
    batch_limit: int | None = None
    bulk: bool = False

    @property
    def queue(self) -> tuple[bool, Hashable]:
        """What it shares with those that may be in its request."""
        return self.bulk, self.signature


@dataclass(frozen=True, slots=True)
class BatcherStatistics:
    """A look at a batcher.

    Attributes:
        waiting: calls that wait for a slot.
        waiting_bytes: bytes of their inputs.
        sent: calls in requests under way.
        busy: requests under way.
        signatures: different signatures that wait.
        oldest: seconds the oldest call has waited; 0.0 when none waits.
    """

    waiting: int
    waiting_bytes: int
    sent: int
    busy: int
    signatures: int
    oldest: float


class Batcher(Generic[T]):
    """Gathers calls into requests.

    Args:
        max_batch: the most calls a request may hold; 1 for a model without batch dimension.
        request_bytes: the most bytes a request may hold; a single larger call goes alone.
        max_calls: the most calls that may be here, waiting or sent.
        max_bytes: the most bytes of calls that may be here; a single larger call may be alone.
    """

    def __init__(
        self,
        *,
        max_batch: int = 1,
        request_bytes: int = 16 * MIB,
        max_calls: int = 4096,
        max_bytes: int = 256 * MIB,
    ):
        self.max_batch = max_batch
        self.request_bytes = request_bytes
        self.max_calls = max_calls
        self.max_bytes = max_bytes
        self.busy = 0
        # Bulk or not, and signature -> its waiting calls by ticket, in order; never an empty one.
        self._queues: dict[tuple[bool, Hashable], OrderedDict[int, Entry[T]]] = {}
        # Of the waiting calls; and requests of live calls taken since one of bulk calls.
        self._waiting_bulk = 0
        self._live_in_turn = 0
        # Whether the request under way is one of suspects.
        self._alone = False
        self._next_ticket = 0
        self._waiting = 0
        self._waiting_bytes = 0
        self._sent = 0
        self._sent_bytes = 0

    def fits(self, size: int, *, bulk: bool = False) -> bool:
        """Whether a call of this many bytes may be added now."""
        calls, held = self._waiting + self._sent, self._waiting_bytes + self._sent_bytes
        part = BULK_ROOM if bulk else 1
        return not calls or (calls < part * self.max_calls and held + size <= part * self.max_bytes)

    def add(
        self, signature: Hashable, item: T, size: int, now: float, *, bulk: bool = False
    ) -> Entry[T] | None:
        """Add a call, or return None when it does not fit: the caller waits and tries again."""
        if not self.fits(size, bulk=bulk):
            return None
        entry = Entry(item, signature, size, self._next_ticket, now, bulk=bulk)
        self._next_ticket += 1
        self._enqueue(entry)
        return entry

    def remove(self, entry: Entry[T]) -> bool:
        """Take out a call that nobody waits for any more; False when it is not waiting here."""
        queue = self._queues.get(entry.queue)
        if queue is None or queue.get(entry.ticket) is not entry:
            return False
        self._dequeue(queue, entry)
        return True

    def take(self, slots: int, *, beside: bool = False) -> list[Entry[T]]:
        """The calls of the next request, or none; a request that was taken must be `finish`ed.

        Args:
            slots: how many requests may be under way.
            beside: also beside suspects, to hear what became of them.
        """
        if self.busy >= slots or not self._queues or (self._alone and not beside):
            return []
        queue = self._next_queue()
        suspect = next(iter(queue.values())).batch_limit is not None
        if suspect and self.busy and not beside:
            return []
        taken: list[Entry[T]] = []
        size, most = 0, self.max_batch
        for entry in queue.values():
            most = min(most, entry.batch_limit or most)
            full = len(taken) >= most or size + entry.size > self.request_bytes
            if taken and (full or suspect != (entry.batch_limit is not None)):
                break
            taken.append(entry)
            size += entry.size
        for entry in taken:
            self._dequeue(queue, entry)
        self._live_in_turn = 0 if taken[0].bulk else self._live_in_turn + 1
        self._alone = suspect
        self.busy += 1
        self._sent += len(taken)
        self._sent_bytes += size
        return taken

    def put_back(self, entries: Iterable[Entry[T]]) -> None:
        """Let calls of a request wait again, in their old place in the order."""
        behind: set[tuple[bool, Hashable]] = set()
        for entry in entries:
            self.done(entry)
            self._enqueue(entry)
            behind.add(entry.queue)
        for key in behind:
            # Rare, so that sorting is cheaper than any structure that stays sorted.
            queue = self._queues[key]
            for ticket in sorted(queue):
                queue.move_to_end(ticket)

    def done(self, entry: Entry[T]) -> None:
        """A call of a request has its answer; there is room for another."""
        self._sent -= 1
        self._sent_bytes -= entry.size

    def finish(self) -> None:
        """A request that `take` gave has ended: its slot is free."""
        self.busy -= 1
        self._alone = False

    def __len__(self) -> int:
        """Calls that wait."""
        return self._waiting

    def __iter__(self) -> Iterator[Entry[T]]:
        """The calls that wait, those of one signature in order."""
        for queue in self._queues.values():
            yield from queue.values()

    def statistics(self, now: float) -> BatcherStatistics:
        """A look at what is here.

        Args:
            now: by the clock that `add` was given.
        """
        return BatcherStatistics(
            waiting=self._waiting,
            waiting_bytes=self._waiting_bytes,
            sent=self._sent,
            busy=self.busy,
            signatures=len({signature for _, signature in self._queues}),
            oldest=max((now - entry.added for entry in self), default=0.0),
        )

    def __repr__(self) -> str:
        return (
            f"Batcher(waiting={self._waiting}, busy={self.busy}, sent={self._sent}, "
            f"signatures={len(self._queues)}, max_batch={self.max_batch})"
        )

    def _next_queue(self) -> OrderedDict[int, Entry[T]]:
        """Whose turn it is."""
        queues: Iterable[OrderedDict[int, Entry[T]]] = self._queues.values()
        if 0 < self._waiting_bulk < self._waiting:
            turn = self._live_in_turn >= BULK_EVERY - 1
            queues = [queue for (bulk, _), queue in self._queues.items() if bulk is turn]
        # Fair between signatures: the one whose first call is the oldest. Few are ever waiting.
        return min(queues, key=_first_ticket)

    def _enqueue(self, entry: Entry[T]) -> None:
        queue = self._queues.setdefault(entry.queue, OrderedDict())
        queue[entry.ticket] = entry
        self._waiting += 1
        self._waiting_bulk += entry.bulk
        self._waiting_bytes += entry.size

    def _dequeue(self, queue: OrderedDict[int, Entry[T]], entry: Entry[T]) -> None:
        del queue[entry.ticket]
        if not queue:
            del self._queues[entry.queue]
        self._waiting -= 1
        self._waiting_bulk -= entry.bulk
        self._waiting_bytes -= entry.size


def _first_ticket(queue: OrderedDict[int, Entry[T]]) -> int:
    return next(iter(queue))
