"""Room: the callers of one model that wait for a request, in the batcher or for room in it.

Keeps the part of promise 3 that memory stays bounded: the batcher refuses what does not fit, and
then the caller waits here, in the order of the turns.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Hashable
from operator import attrgetter

from mqinfer.inference.batcher import Batcher
from mqinfer.inference.calls import Call
from mqinfer.inference.turns import Place

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
        live, bulks = self._waiting
        # Behind those that wait already, whatever its size.
        if not live and not (call.bulk and bulks) and self._add(call, None):
            return True
        call.place = self._batcher.place(call.caller, bulk=call.bulk)
        insort(self._waiting[call.bulk], call, key=_place)
        return False

    def admit(self) -> bool:
        """Let in callers that wait for room, in order, as far as there is some; whether any was."""
        found = False
        for waiting in self._waiting:
            while waiting:
                if not self._add(waiting[0], waiting[0].place):
                    return found
                del waiting[0]
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

    def _add(self, call: Call, place: Place | None) -> bool:
        entry = self._batcher.add(
            self._signature(call),
            call,
            call.size,
            self._clock(),
            bulk=call.bulk,
            caller=call.caller,
            place=place,
        )
        if entry is not None and call.losses is not None:
            entry.batch_limit = 1  # a suspect from the beginning
        call.entry = entry
        return entry is not None
