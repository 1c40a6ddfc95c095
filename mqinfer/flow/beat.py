"""Beat: the event loop's signs of life, for all that must know that it stood still.

While a handler blocks the loop nothing is read, sent or renewed. A timer leaves a sign of life a
few times a second. Other threads see by it that none comes; the loop itself, once it turns again,
that the past seconds were no ordinary ones: nothing new is begun before what was said has left, and
what is read now may have lain in the socket all the while.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

from mqinfer.errors import Unavailable

EVERY = 0.2  # seconds between signs of life, at the most


async def _at_once() -> None:
    """Nothing is to be caught up with."""


class Beat:
    """The signs of life of one loop; before it is `beating`, and after, it is never late.

    Args:
        every: seconds between them.
        turned: called when the loop turns again, with the seconds for which it did not.
        catch_up: returns when all has been read that was sent before it was called.
        clock: monotonic seconds.

    Attributes:
        last: when the loop last gave a sign of life.
        sent_after: what is read now was sent to this process after that.
        late: seconds without a sign of life that are no ordinary ones.
    """

    def __init__(
        self,
        every: float = EVERY,
        *,
        turned: Callable[[float], None] = lambda _seconds: None,
        catch_up: Callable[[], Awaitable[None]] = _at_once,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.every = every
        self.late = 2.5 * every
        self.last = self.sent_after = math.inf
        self._turned = turned
        self._catch_up = catch_up
        self._clock = clock
        self._behind = False
        self._next = asyncio.Event()
        self._catching: asyncio.Task[None] | None = None

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Give signs of life on the running loop while inside."""
        self._loop = asyncio.get_running_loop()
        self.last = self.sent_after = self._clock()
        self._beat()
        try:
            yield
        finally:
            self._timer.cancel()
            if self._catching is not None:
                self._catching.cancel()
            self.last = self.sent_after = math.inf

    def _beat(self) -> None:
        self._timer = self._loop.call_later(self.every, self._beat)
        before, self.last = self.last, self._clock()
        self._next.set()
        self._next = asyncio.Event()
        if self.last - before > self.late:
            self._behind = True
            if self._catching is None:
                self._catching = self._loop.create_task(self._catching_up(), name="catch up")
            self._turned(self.last - before)
        elif self._catching is None:
            self.sent_after = before

    async def _catching_up(self) -> None:
        """Until all is read that was sent while the loop stood still, `sent_after` stays."""
        try:
            while self._behind:  # it may stand still again meanwhile
                self._behind, asked = False, self._clock()
                with suppress(Unavailable):  # of another connection nothing old is read
                    await self._catch_up()
                self.sent_after = asked
        finally:
            self._catching = None

    def missing(self) -> float:
        """Seconds since the last sign of life; from any thread."""
        return self._clock() - self.last

    async def turns(self) -> None:
        """Return when the loop has turned: what was said has left, what stood still is over."""
        while self.missing() > self.late:
            await self._next.wait()

    def __repr__(self) -> str:
        return f"Beat(missing for {self.missing():.1f} s)"
