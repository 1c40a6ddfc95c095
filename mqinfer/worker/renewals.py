"""Renewals: while the event loop stands still, a thread says that its messages are worked on.

Without it the server would give all that a worker holds to others as soon as one handler blocks the
loop for longer than `ack_wait`, and each of these messages would be handled twice. The thread
starts when the loop is late by a part of the shortest `ack_wait`, so a worker whose handlers never
block pays nothing; it has an event loop and a connection of its own. It renews what the runners
hold, and that of which something was said already that could not leave. What ran out before it
came, it leaves alone: that may be another worker's.

It ends some time after the loop turns again. And it gives up when one handler blocks the loop for
longer than it may: a worker that hangs for ever must not keep its messages for ever.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

import structlog

from mqinfer.errors import MqinferError

if TYPE_CHECKING:
    from mqinfer.flow.beat import Beat
    from mqinfer.flow.runner import Runner

log = structlog.get_logger("mqinfer.worker")

BEGIN = 1 / 6  # of the shortest ack_wait: renewals are due at a third of it
LINGER = 30.0  # seconds that the connection is kept: one block is seldom the last
END = 1.0  # seconds that the thread may hold up a stop


class Line(Protocol):
    """A second connection to the broker, of another event loop."""

    async def renew(self, replies: Collection[bytes], timeout: float) -> set[bytes]:
        """Start `ack_wait` anew.

        Args:
            replies: of the deliveries.
            timeout: seconds to wait for the server.

        Returns:
            Those that the server has confirmed.
        """


class Lines(Protocol):
    """What is needed of the first connection; any thread may call it."""

    def line(self) -> AbstractAsyncContextManager[Line]:
        """A second one with the same settings.

        Raises:
            Unavailable: nobody answers; when it is entered.
        """

    def unsent(self) -> list[bytes]:
        """Replies of deliveries of which something was said that has not left."""


class Renewals:
    """The renewals of one worker.

    Args:
        lines: to the broker whose deliveries they are.
        runners: the stages that run, now.
        beat: of the loop.
        given_up: why the loop is not waited for any more, or None.
        clock: monotonic seconds, the beat's and the runners'.
    """

    def __init__(
        self,
        lines: Lines,
        runners: Callable[[], Sequence[Runner]],
        beat: Beat,
        given_up: Callable[[], str | None],
        clock: Callable[[], float] = time.monotonic,
    ):
        self._lines = lines
        self._runners = runners
        self._beat = beat
        self._given_up = given_up
        self._clock = clock
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._told = 0.0  # the last sign of life before the block in which it was given up
        self._said: dict[bytes, float] = {}  # reply of what could not leave -> last renewal

    def look(self) -> None:
        """Start the thread if the loop stands still; call it often, in another thread."""
        if self._thread is not None and self._thread.is_alive():
            return
        if self._ended.is_set() or not self._needed():
            return
        self._thread = threading.Thread(target=self._run, name="mqinfer-renewals", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # the system has no thread left; the next look may find one
            log.warning("nothing is renewed while the event loop is blocked", reason=str(error))

    def end(self) -> None:
        """End the thread; it may be on its way to a server that does not answer."""
        self._ended.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(END)

    def _shortest(self) -> float | None:
        return min((runner.claims.ack_wait for runner in self._runners()), default=None)

    def _needed(self) -> bool:
        shortest = self._shortest()
        if shortest is None or self._beat.missing() < max(BEGIN * shortest, self._beat.late):
            return False
        reason = self._given_up()
        if reason is None:
            return True
        last = self._beat.last
        if self._told != last:
            self._told = last
            log.error("the worker is given up: others get what it holds", reason=reason)
        return False

    # --- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._keep())
        except MqinferError as error:
            log.warning("nothing is renewed while the event loop is blocked", reason=str(error))
        except Exception:
            log.exception("nothing is renewed while the event loop is blocked")

    async def _keep(self) -> None:
        async with self._lines.line() as line:
            needed = self._clock()
            while not self._ended.is_set() and self._clock() - needed < LINGER:
                if self._needed():
                    needed = self._clock()
                    await self._renew(line)
                await asyncio.sleep(self._beat.every)

    async def _renew(self, line: Line) -> None:
        """Renew once what is due."""
        shortest = self._shortest()
        if shortest is None:
            return
        now, due_after = self._clock(), shortest / 3
        held = [
            (runner.claims, job, job.delivery.reply)
            for runner in self._runners()
            for job in runner.claims.due(now)
        ]
        self._said = {reply: self._said.get(reply, float("-inf")) for reply in self._lines.unsent()}
        said = {reply for reply, renewed in self._said.items() if renewed <= now - due_after}
        wanted = said.union(reply for _, _, reply in held)
        if not wanted:
            return
        confirmed = await line.renew(wanted, timeout=due_after)
        for claims, job, reply in held:
            if reply in confirmed:
                claims.renewed(job, now)
        self._said.update((reply, now) for reply in said & confirmed)
