"""Room: the callers of one model that wait for a request, in the batcher or for room in it.

Keeps the part of promise 3 that memory stays bounded: the batcher refuses what does not fit, and
then the caller waits here, in the order of the turns.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Hashable
from operator import attrgetter

from mqinfer.inference.batcher import Batcher, Entry
from mqinfer.inference.calls import Call

_place = attrgetter("place")


class Room:
    """Who waits for the requests of one model.

    Args:
        batcher: gathers the calls.
        signature: what calls must share to be in one request.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        batcher: Batcher[Call],
        signature: Callable[[Call], Hashable],
        clock: Callable[[], float],
    ):
        self._batcher = batcher
        self._signature = signature
        self._clock = clock
        # Callers for whom there is no room, by place: the live ones, the bulk ones.
        self._waiting: tuple[list[Call], list[Call]] = ([], [])

    def enter(self, call: Call) -> bool:
        """A caller came; False when it has to wait for room."""
        call.place = self._batcher.place(call.caller, bulk=call.bulk)
        live, bulks = self._waiting
        if live or (call.bulk and bulks) or not self._batcher.fits(call.size, bulk=call.bulk):
            insort(self._waiting[call.bulk], call, key=_place)
            return False
        self._add(call)
        return True

    def admit(self) -> bool:
        """Let in callers that wait for room, in order, as far as there is some; whether any was."""
        found = False
        for waiting in self._waiting:
            while waiting:
                call = waiting[0]
                if not self._batcher.fits(call.size, bulk=call.bulk):
                    return found
                del waiting[0]
                self._add(call)
                found = True
        return found

    def leave(self, call: Call) -> bool:
        """A caller waits no more; whether there may be room for another now."""
        if call.entry is None:
            waiting = self._waiting[call.bulk]
            del waiting[bisect_left(waiting, call.place, key=_place)]
            self._batcher.leave(call.caller, bulk=call.bulk)
            return True
        return self._batcher.remove(call.entry)

    def __len__(self) -> int:
        """Callers for whom there is no room."""
        return sum(map(len, self._waiting))

    def _add(self, call: Call) -> None:
        call.entry = entry = Entry(
            call,
            self._signature(call),
            call.size,
            call.place,
            call.caller,
            self._clock(),
            # A suspect from the beginning goes alone.
            None if call.losses is None else 1,
            call.bulk,
        )
        self._batcher.put(entry)
