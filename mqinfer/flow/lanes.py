"""Lanes: the handlers of one stage in one process, shared by live messages and those of jobs.

Each of the two has a runner of its own, so that nothing live waits in a queue behind a job. What
they share is how many handlers are at work at once, where the stage bounds that: a live message has
the next place that becomes free, and while live ones wait, one place in four is a job's. And they
share the loop and the way to the servers: see `Turn`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mqinfer.flow.handling import Handling
    from mqinfer.flow.job import Job

# While live messages wait, one place of so many is for those of jobs.
BULK_EVERY: Final = 4
# Of one turn of the loop those of jobs have so many seconds.
SHARE: Final = 0.001
# After something live has come they stand back for so many seconds, and for no longer than these.
QUIET: Final = 0.01
BACK: Final = 0.06
# Of those that wait so many are woken in one turn: about what goes into its share.
WOKEN: Final = 32


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


class Turn:
    """When those of jobs may go on, all stages of a process together.

    What is live waits for several turns of the loop and answers of servers, one behind the other. A
    handler that never waits empties its mailbox in one turn, so those of jobs have a part of each.
    And for a moment after something live has come they stand back: what they have on its way to a
    server is before it there, too. At least a quarter of the time is theirs.

    Those that wait are woken by one timer, some at a time: hundreds that each look for themselves
    cost the loop more than what they wait to do.

    Args:
        share: seconds of one turn.
        clock: monotonic seconds.
    """

    def __init__(self, share: float = SHARE, clock: Callable[[], float] = time.perf_counter):
        self._share = share
        self._clock = clock
        self._until = 0.0  # when what may be taken of this turn is taken; 0 while nothing is
        self._quiet = -math.inf  # until when something live is believed to go on
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.Handle | None = None  # while any wait
        self._since: float | None = None  # when they began to stand back
        self._due = -math.inf  # until when they need not

    def live(self) -> None:
        """Something live has come."""
        self._quiet = self._clock() + QUIET

    async def room(self) -> None:
        """Go on: now, or when those of jobs may."""
        waits = bool(self._waiting)  # whoever waits goes first
        while (left := self._left()) is not None or waits:
            waits = False
            place = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            self._look_in(left or 0.0)
            await place
        if not self._until:
            self._until = self._clock() + self._share
            # It runs at the beginning of the next turn, before all that waits here.
            asyncio.get_running_loop().call_soon(self._begin)

    def _look_in(self, seconds: float) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            later = loop.call_later(seconds, self._look) if seconds else loop.call_soon(self._look)
            self._timer = later

    def _look(self) -> None:
        """Wake some of those that wait, if they may go on."""
        self._timer = None
        left = self._left()
        woken = 0 if left is not None else WOKEN
        while self._waiting and (woken or self._waiting[0].done()):
            place = self._waiting.popleft()
            if not place.done():  # its handler was not cancelled
                place.set_result(None)
                woken -= 1
        if self._waiting:
            self._look_in(left or 0.0)

    def _left(self) -> float | None:
        """Seconds after which to look again, 0 in the next turn; None: go on."""
        now = self._clock()
        if now >= self._quiet:
            self._since = None
        elif now >= self._due:
            if self._since is None:
                self._since = now
            left = self._since + BACK - now
            if left > 0:
                return min(left, self._quiet - now)
            self._since, self._due = None, now + BACK / (BULK_EVERY - 1)
        return 0.0 if self._until and now >= self._until else None

    def _begin(self) -> None:
        self._until = 0.0


class InTurns:
    """A handling of what comes of jobs, which goes on when it may.

    Args:
        handling: of a stage, or of the tracker.
        turn: that all share.
    """

    def __init__(self, handling: Handling, turn: Turn):
        self.runs_user_code = handling.runs_user_code
        self.concurrency = handling.concurrency
        self.batch_size = handling.batch_size
        self.batch_wait = handling.batch_wait
        self.weigh: Callable[[Job], int] | None = handling.weigh
        self._handling = handling
        self._turn = turn

    async def run(self, jobs: Sequence[Job]) -> None:
        """Handle them."""
        await self._turn.room()
        await self._handling.run(jobs)

    @property
    def exhausted(self) -> bool:
        """Whether hung handlers hold too many threads."""
        return self._handling.exhausted

    def close(self) -> None:
        """Let threads end."""
        self._handling.close()


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
