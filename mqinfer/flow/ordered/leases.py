"""Leases: how work on owned partitions differs from plain work.

A message is this worker's while it owns the partition and the claim was renewed in time. Whatever
fails is tried again here, at its place; it goes to another worker with the partition alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING

import msgspec

from mqinfer.flow.claims import HOLD
from mqinfer.flow.job import SETTLED
from mqinfer.flow.ordered.partition import Held, Token
from mqinfer.flow.policy import Policy

if TYPE_CHECKING:
    from mqinfer.flow.job import Job
    from mqinfer.flow.ordered.owner import Owner
    from mqinfer.flow.past import Past
    from mqinfer.flow.policy import Claim
    from mqinfer.ports import Delivery

EARLY = 0.05  # seconds that a message may come before its time


class Leases(Policy):
    """The policy of a stage that owns partitions.

    Args:
        owner: of the partitions of this worker.
    """

    def __init__(self, owner: Owner):
        self._owner = owner
        self._put: Callable[[Job], None] = _nowhere
        self._put_off: dict[Job, asyncio.TimerHandle] = {}

    # --- turns ----------------------------------------------------------------------------------

    def admits(self, delivery: Delivery) -> bool:
        """Whether a message is to be handled: not one whose end is said, and not read yet.

        The server did not know when it delivered it again; its successor may have begun meanwhile.
        """
        if not isinstance(delivery, Held):
            return True
        known = delivery.partition.turns.item(delivery.sequence)
        return known is None or known.state is not SETTLED

    def begins(
        self,
        put: Callable[[Job], None],
        hand_back: Callable[[Sequence[Job]], Awaitable[None]],
    ) -> Callable[[Job], None]:
        """A message waits for its turn before it waits for a handler."""
        self._put = put
        self._owner.begins(put, hand_back)
        return self._arrived

    def _arrived(self, job: Job) -> None:
        held = job.delivery
        assert isinstance(held, Held)
        if held.partition.turns.arrived(held.sequence, job):
            self._put(job)

    def passes(self, job: Job, begins: Callable[[Job], None]) -> None:
        """The next of its key begins, if it is here, while the end of this one is on its way."""
        held = job.delivery
        assert isinstance(held, Held)
        following = held.partition.turns.passes(held.sequence)
        if following is not None:
            begins(following)
            self._put(following)

    def settled(self, job: Job) -> None:
        """The next of its key begins when the server knows: a death in between must not repeat it.

        Else another worker would be given this message after its successor had begun.
        """
        held = job.delivery
        assert isinstance(held, Held)
        held.settled = True
        owner = self._owner

        def known() -> None:
            following = held.partition.settled(held)
            if following is not None:
                self._put(following)
            owner.asks()

        owner.broker.confirm(held, known)

    def left(self, job: Job) -> None:
        """What left unsettled is somebody's to settle first."""
        held = job.delivery
        if timer := self._put_off.pop(job, None):
            timer.cancel()
        if isinstance(held, Held) and not held.settled:
            held.partition.left(held, self._owner.clock())
        if job.memory is not None:
            job.memory.leave()

    def waiting(self) -> list[Job]:
        """Those that wait for their turn, or for their time."""
        return [job for partition in self._owner.partitions for job in partition.turns.waiting()]

    # --- again ----------------------------------------------------------------------------------

    def keeps(self, job: Job) -> bool:
        """Whether a message that failed is tried again here, so that those behind it can wait."""
        held = job.delivery
        return isinstance(held, Held) and held.partition.alone

    def noted(self, job: Job, past: Past, delay: float) -> Past:
        """Whoever owns the partition then must know until when it waits."""
        held = job.delivery
        if not isinstance(held, Held) or not held.partition.alone:
            return past
        return msgspec.structs.replace(past, explained=held.delivered, until=time.time() + delay)

    def again(self, job: Job, delay: float) -> None:
        """A message that failed has become this job: its time comes after `delay` seconds."""
        held = job.delivery
        assert isinstance(held, Held)
        held.again()
        self._wait(job, held, delay)

    def early(self, job: Job) -> bool:
        """Whether the time of a message has not come: then it waits here."""
        held = job.delivery
        delay = job.past.until - time.time()
        if delay <= EARLY or not isinstance(held, Held):
            return False
        self._wait(job, held, delay)
        return True

    def _wait(self, job: Job, held: Held, delay: float) -> None:
        turns = held.partition.turns

        def due() -> None:
            if self._put_off.pop(job, None) and turns.due(held.sequence):
                self._put(job)

        held.partition.rest(held, job, self._owner.clock())
        if earlier := self._put_off.get(job):
            earlier.cancel()
        self._put_off[job] = asyncio.get_running_loop().call_later(delay, due)

    # --- claims ---------------------------------------------------------------------------------

    def owns(self, job: Job, now: float) -> bool:
        """Whether a message is still this worker's, as far as it can know."""
        held = job.delivery
        if not isinstance(held, Held):
            return True
        token, partition = held.token, held.partition
        if token is None or token is not partition.token:
            return False
        # A renewal of the token that was confirmed says that all before it was heard.
        began = held.renewed if partition.turns.single else min(token.renewed, job.pulsed)
        return now - began <= HOLD * self._owner.ack_wait

    def heard(self, job: Job) -> float:
        """When the server last heard of a message."""
        held = job.delivery
        if isinstance(held, Held) and held.partition.turns.single:
            return held.renewed  # a renewal that was not confirmed is tried again
        return job.pulsed

    def renewed(self, job: Claim, asked: float) -> None:
        """A claim begins anew."""
        claim = job if isinstance(job, Token) else job.delivery
        if isinstance(claim, (Token, Held)):
            claim.renewed = max(claim.renewed, asked)

    def claims(self, now: float) -> Collection[Token]:
        """The tokens are renewed like messages."""
        wait = self._owner.ack_wait
        tokens = [partition.token for partition in tuple(self._owner.owned)]
        return [
            token
            for token in tokens
            if token is not None and wait / 3 <= now - token.renewed <= HOLD * wait
        ]

    def tick(self, now: float) -> None:
        """Renew what is owned, and notice what is not any more."""
        self._owner.renew(now)

    async def end(self) -> None:
        """Everything is settled or handed back: others may own the partitions."""
        for timer in self._put_off.values():
            timer.cancel()
        self._put_off.clear()
        await self._owner.end()


def _nowhere(_job: Job) -> None:
    """Nothing has begun."""
