"""Batcher: which model calls go out together, and when; pure decisions, no I/O, no clock read.

One `Batcher` holds the calls of one model and version. A call goes out at once while a request slot
is free; while all slots are busy calls gather; when a slot frees, everything gathered with the
oldest call's signature goes as one request, up to the model's batch size and a byte bound. There is
no timer: an idle model adds no latency and a busy one fills its batches by itself.

Several callers take turns (see `turns`): one that asks for thousands at once does not hold up
another's lone call. Live calls go before bulk ones (those of a replay, or of a handle that says
so), in requests of their own. Of the requests that are taken while both wait, one in four is of
bulk calls, so that they are not starved. A part of the room is for live calls alone.

Keeps the part of promise 3 that memory stays bounded: `add` refuses what does not fit, and the
caller waits.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Generic, TypeVar

from mqinfer.inference.turns import Place, Turns

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
        place: its turn; kept when the call is put back.
        caller: whose turn it is.
        added: when it arrived, by the caller's clock.
        batch_limit: the most calls its next request may hold; None is the model's bound. Calls
            whose request ended without an answer are suspects: they go again in smaller requests,
            with no other beside, so that one that brings the model down is found.
        bulk: whether live calls go before it.
    """

    item: T
    signature: Hashable
    size: int
    place: Place
    caller: Hashable
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
        # Bulk or not, and signature -> its waiting calls by place; never an empty one.
        self._queues: dict[tuple[bool, Hashable], list[Entry[T]]] = {}
        # Of live calls, of bulk ones.
        self._turns = Turns(), Turns()
        # Of the waiting calls; and requests of live calls taken since one of bulk calls.
        self._waiting_bulk = 0
        self._live_in_turn = 0
        # Whether the request under way is one of suspects.
        self._alone = False
        self._waiting = 0
        self._waiting_bytes = 0
        self._sent = 0
        self._sent_bytes = 0

    def fits(self, size: int, *, bulk: bool = False) -> bool:
        """Whether a call of this many bytes may be added now."""
        calls, held = self._waiting + self._sent, self._waiting_bytes + self._sent_bytes
        part = BULK_ROOM if bulk else 1
        return not calls or (calls < part * self.max_calls and held + size <= part * self.max_bytes)

    def place(self, caller: Hashable, *, bulk: bool = False) -> Place:
        """The place of a call that is added with it, at once or later; or given up by `leave`."""
        return self._turns[bulk].place(caller)

    def leave(self, caller: Hashable, *, bulk: bool = False) -> None:
        """A call that has a place is not added."""
        self._turns[bulk].gone(caller)

    def add(
        self,
        signature: Hashable,
        item: T,
        size: int,
        now: float,
        *,
        bulk: bool = False,
        caller: Hashable = None,
        place: Place | None = None,
    ) -> Entry[T] | None:
        """Add a call, or return None when it does not fit: the caller waits and tries again.

        Args:
            signature: what it must share with others to be in one request.
            item: the caller's own object.
            size: bytes of its inputs.
            now: monotonic seconds.
            bulk: whether live calls go before it.
            caller: whose turn it is.
            place: that it has already; None takes the next.
        """
        if not self.fits(size, bulk=bulk):
            return None
        if place is None:
            place = self.place(caller, bulk=bulk)
        entry = Entry(item, signature, size, place, caller, now, bulk=bulk)
        self._enqueue(entry)
        return entry

    def remove(self, entry: Entry[T]) -> bool:
        """Take out a call that nobody waits for any more; False when it is not waiting here."""
        queue = self._queues.get(entry.queue, [])
        index = bisect_left(queue, entry.place, key=_place)
        if index == len(queue) or queue[index] is not entry:
            return False
        self._dequeue(queue, index, index + 1)
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
        suspect = queue[0].batch_limit is not None
        if suspect and self.busy and not beside:
            return []
        taken: list[Entry[T]] = []
        size, most = 0, self.max_batch
        for entry in queue:
            most = min(most, entry.batch_limit or most)
            full = len(taken) >= most or size + entry.size > self.request_bytes
            if taken and (full or suspect != (entry.batch_limit is not None)):
                break
            taken.append(entry)
            size += entry.size
        self._dequeue(queue, 0, len(taken))
        self._turns[taken[0].bulk].over(taken[-1].place)
        self._live_in_turn = 0 if taken[0].bulk else self._live_in_turn + 1
        self._alone = suspect
        self.busy += 1
        self._sent += len(taken)
        self._sent_bytes += size
        return taken

    def put_back(self, entries: Iterable[Entry[T]]) -> None:
        """Let calls of a request wait again, in their old place in the order."""
        for entry in entries:
            self.done(entry)
            self._turns[entry.bulk].back(entry.caller, entry.place)
            self._enqueue(entry)

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
            yield from queue

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

    def _next_queue(self) -> list[Entry[T]]:
        """Whose turn it is."""
        queues: Iterable[list[Entry[T]]] = self._queues.values()
        if 0 < self._waiting_bulk < self._waiting:
            turn = self._live_in_turn >= BULK_EVERY - 1
            queues = [queue for (bulk, _), queue in self._queues.items() if bulk is turn]
        # Fair between signatures, too: few are ever waiting.
        return min(queues, key=_first_place)

    def _enqueue(self, entry: Entry[T]) -> None:
        queue = self._queues.setdefault(entry.queue, [])
        if queue and entry.place < queue[-1].place:
            insort(queue, entry, key=_place)
        else:
            queue.append(entry)
        self._waiting += 1
        self._waiting_bulk += entry.bulk
        self._waiting_bytes += entry.size

    def _dequeue(self, queue: list[Entry[T]], first: int, last: int) -> None:
        entries = queue[first:last]
        del queue[first:last]
        if not queue:
            del self._queues[entries[0].queue]
        bulk = entries[0].bulk
        turns = self._turns[bulk]
        for entry in entries:
            turns.gone(entry.caller)
            self._waiting_bytes -= entry.size
        self._waiting -= len(entries)
        self._waiting_bulk -= bulk * len(entries)


_place = attrgetter("place")


def _first_place(queue: list[Entry[T]]) -> Place:
    return queue[0].place
