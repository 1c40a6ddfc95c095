"""Lanes: the handlers of one stage in one process, shared by live messages and those of jobs.

Each of the two has a runner of its own, so that nothing live waits in a queue behind a job. What
they share is how many handlers are at work at once, where the stage bounds that: a live message has
the next place that becomes free, and while live ones wait, one place in four is a job's.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mqinfer.flow.handling import Handling
    from mqinfer.flow.job import Job

# While live messages wait, one place of so many is for those of jobs.
BULK_EVERY: Final = 4


class Places:
    """So many handlers may be at work at once.

    Args:
        count: how many.
    """

    def __init__(self, count: int):
        self._free = count
        # Of live messages, of those of jobs.
        self._waiting: tuple[deque[asyncio.Future[None]], ...] = (deque(), deque())
        self._live_in_turn = 0

    def take(self) -> bool:
        """Take a place, if one is free."""
        if not self._free:
            return False
        self._free -= 1
        return True

    async def wait(self, *, bulk: bool) -> None:
        """Have a place, once it is this one's turn."""
        place = asyncio.get_running_loop().create_future()
        self._waiting[bulk].append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.leave()  # it was given just now
            elif place in self._waiting[bulk]:
                self._waiting[bulk].remove(place)
            raise

    def leave(self) -> None:
        """A place is free: whoever is next has it."""
        live, bulk = self._waiting
        while live or bulk:
            turn = not live or (bool(bulk) and self._live_in_turn >= BULK_EVERY - 1)
            place = self._waiting[turn].popleft()
            if not place.done():
                self._live_in_turn = 0 if turn else self._live_in_turn + 1
                place.set_result(None)
                return
        self._free += 1


class InLane:
    """A stage's handling of live messages, or of those of jobs.

    Args:
        handling: of the stage.
        places: that both share.
        bulk: whether they are of jobs.
    """

    runs_user_code = True

    def __init__(self, handling: Handling, places: Places, *, bulk: bool):
        self.concurrency = handling.concurrency
        self.batch_size = handling.batch_size
        self.batch_wait = handling.batch_wait
        self.weigh: Callable[[Job], int] | None = handling.weigh
        self._handling = handling
        self._places = places
        self._bulk = bulk

    async def run(self, jobs: Sequence[Job]) -> None:
        """Handle them, once there is a place; that counts against no timeout."""
        places = self._places
        if not places.take():
            context = jobs[0].context  # the messages of a batch share its time
            assert context is not None
            context.pause(time.monotonic())
            try:
                await places.wait(bulk=self._bulk)
            finally:
                context.resume(time.monotonic())
        try:
            await self._handling.run(jobs)
        finally:
            places.leave()

    @property
    def exhausted(self) -> bool:
        """Whether hung handlers hold too many threads."""
        return self._handling.exhausted

    def close(self) -> None:
        """Let threads end."""
        self._handling.close()
