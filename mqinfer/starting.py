"""Starting: a server that is away is waited for, and a stop ends the wait (promises 3 and 5)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import structlog

from mqinfer.backoff import Backoff
from mqinfer.errors import ConnectionClosed, Unavailable

log = structlog.get_logger("mqinfer.worker")

T = TypeVar("T")

# Short, since work is to begin within two seconds of a server's return.
AGAIN = Backoff(initial=0.1, maximum=1.0, jitter=0.2)


class Patience:
    """Asks NATS again while it does not answer.

    A wait is logged once when it begins and once when it ends, however many wait at a time; in
    between `reason` tells of it.

    Args:
        wait: False raises what the first attempt raises.
        clock: monotonic seconds.
    """

    def __init__(self, *, wait: bool = True, clock: Callable[[], float] = time.monotonic):
        self.wait = wait
        self._clock = clock
        self._since = 0.0
        self._waiting: dict[object, str] = {}

    @property
    def reason(self) -> str | None:
        """Why NATS did not answer the last time somebody asked who still waits; None: nobody."""
        return next(reversed(self._waiting.values()), None)

    async def answer(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What `ask` gives, which is called until it does not raise `Unavailable`.

        Raises:
            Unavailable: waiting is not wanted, or the connection is closed for good.
        """
        me, failures = object(), 0
        try:
            while True:
                try:
                    found = await ask()
                except ConnectionClosed:
                    raise
                except Unavailable as error:
                    if not self.wait:
                        raise
                    _heed_cancellation()
                    self._begin(me, str(error))
                    failures += 1
                    await asyncio.sleep(AGAIN.delay(failures, random.random()))
                else:
                    _heed_cancellation()
                    self._end(me)
                    return found
        finally:
            self._waiting.pop(me, None)

    def _begin(self, who: object, reason: str) -> None:
        if not self._waiting:
            self._since = self._clock()
            log.warning("waiting for NATS", reason=reason)
        self._waiting.pop(who, None)  # the newest reason is the last
        self._waiting[who] = reason

    def _end(self, who: object) -> None:
        if self._waiting.pop(who, None) is not None and not self._waiting:
            log.info("NATS answers", after=round(self._clock() - self._since, 1))

    def __repr__(self) -> str:
        return f"Patience({self.reason or 'nobody waits'})"


def _heed_cancellation() -> None:
    """Raise a cancellation that was swallowed.

    `asyncio.wait_for`, before Python 3.12, raises what it waited for instead if both come at once,
    as they do when a connection is refused.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


@asynccontextmanager
async def unless(stop: asyncio.Event) -> AsyncIterator[None]:
    """Cancel what is awaited inside when `stop` is set, and go on behind it.

    All of it runs in the caller's task, so that a context may be entered here and left elsewhere.
    """
    loop = asyncio.get_running_loop()
    inside = True

    def cut(_: object) -> None:
        # Due already when the inside ends in the same turn: to remove it would not stop it.
        if inside:
            scope.reschedule(loop.time())

    watch = asyncio.create_task(stop.wait(), name="stop")
    try:
        async with asyncio.timeout(None) as scope:
            watch.add_done_callback(cut)
            try:
                yield
            finally:
                inside = False
    except TimeoutError:
        if not scope.expired():
            raise
    finally:
        watch.cancel()
