"""Returned: messages that came before; their past is found out, and suspects wait for their turn.

A suspect that waits (see `lane`) takes a place in flight, but no handler and none before one, so
that other messages go on as wide as without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from mqinfer.errors import WorkerKilled
from mqinfer.flow.job import SETTLED

if TYPE_CHECKING:
    from mqinfer.flow.job import Job
    from mqinfer.flow.lane import Suspect
    from mqinfer.flow.ledger import Ledger
    from mqinfer.flow.mailbox import Mailbox
    from mqinfer.flow.policy import Policy
    from mqinfer.flow.settler import Settler
    from mqinfer.flow.suspects import Suspects


class Returned:
    """The messages of one stage in one process that came before.

    Args:
        suspects: which of them may kill their worker.
        ledger: how their earlier deliveries ended.
        settler: for those that did kill it.
        mailbox: where they wait for a handler.
        read: makes a message of a delivery; False when it is settled already.
        handle: runs the handler in the task that is given.
        hand_back: gives to others what a stop leaves undone.
        clock: monotonic seconds.
        policy: of ordered or replayed work; None is plain work.
    """

    def __init__(
        self,
        suspects: Suspects,
        ledger: Ledger,
        settler: Settler,
        mailbox: Mailbox,
        *,
        read: Callable[[Job], bool],
        handle: Callable[[Sequence[Job], asyncio.Task[object]], Awaitable[None]],
        hand_back: Callable[[Sequence[Job]], Awaitable[None]],
        clock: Callable[[], float],
        policy: Policy | None = None,
    ):
        self._suspects = suspects
        self._ledger = ledger
        self._settler = settler
        self._mailbox = mailbox
        self._read = read
        self._run = handle
        self._hand_back = hand_back
        self._policy = policy
        self._clock = clock
        self._stopping = False

    async def take(self, batch: Sequence[Job], task: asyncio.Task[object]) -> list[Job]:
        """Handle suspects whose turn has come, put others aside; gives what is left, opened."""
        turns = self._suspects.turns(batch)
        if turns:
            await self._handle(turns, task)
            handled = {suspect.job for suspect in turns}
            batch = [job for job in batch if job not in handled]
        jobs = [job for job in batch if self._read(job)]
        await self._ledger.explain(jobs, self._clock)
        jobs = [job for job in jobs if job.state is not SETTLED]  # let go meanwhile
        if self._policy is not None:
            jobs = [job for job in jobs if not self._policy.early(job)]
        suspects = {job for job in jobs if self._suspects.suspects(job)}
        await asyncio.gather(*(self._put_aside(job) for job in jobs if job in suspects))
        return [job for job in jobs if job not in suspects]

    def give_up(self) -> list[Job]:
        """Give those that were put aside, for a stop; those whose turn has come wait elsewhere."""
        self._stopping = True
        waiting = self._policy.waiting() if self._policy is not None else ()
        return [*self._suspects.give_up(), *waiting]

    async def _handle(self, suspects: Sequence[Suspect], task: asyncio.Task[object]) -> None:
        """Handle messages that may kill their worker, with marks by which that is noticed."""
        try:
            await self._suspects.begin(suspects)
            jobs = [one.job for one in suspects if one.job.state is not SETTLED]
            if jobs:
                await self._run(jobs, task)
        finally:
            await self._suspects.ended(suspects)

    async def _put_aside(self, job: Job) -> None:
        suspect = await self._suspects.weigh(job, self._mailbox.put_first)
        if job.state is SETTLED:
            return  # let go meanwhile
        if suspect is None:
            self._settler.dead(
                job,
                WorkerKilled(
                    f"its worker died while it alone was being handled; delivered "
                    f"{job.past.attempt - 1} times (out of memory, a crash in native "
                    "code, os._exit?)"
                ),
            )
        elif self._stopping:
            await self._hand_back([job])
        else:
            self._suspects.wait(suspect)
