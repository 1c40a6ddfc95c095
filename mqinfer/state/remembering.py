"""Remembering: a stage's handling with the states of its messages' keys before and behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mqinfer.errors import Reject, StateChanged, StateError
from mqinfer.flow.job import SETTLED

if TYPE_CHECKING:
    from mqinfer.flow.handling import Handling
    from mqinfer.flow.job import Job, Remembers
    from mqinfer.flow.settler import Settler
    from mqinfer.state.states import States


class Remembering:
    """Gives each message its state, and acknowledges what the state has seen.

    Args:
        handling: of the stage.
        states: of the stage.
        settler: of the stage.
    """

    runs_user_code = True

    def __init__(self, handling: Handling, states: States, settler: Settler):
        self.concurrency = handling.concurrency
        self.batch_size = handling.batch_size
        self.batch_wait = handling.batch_wait
        self.weigh = handling.weigh
        self._handling = handling
        self._states = states
        self._settler = settler

    async def run(self, jobs: Sequence[Job]) -> None:
        """Read the states, and handle those messages that are new to them."""
        if len(jobs) == 1:
            ready = list(jobs) if await self._opens(jobs[0]) else []
        else:
            opened = await asyncio.gather(*map(self._opens, jobs))
            ready = [job for job, new in zip(jobs, opened, strict=True) if new]
            ready = self._one_each(ready)
        if ready:
            await self._handling.run(ready)

    async def _opens(self, job: Job) -> bool:
        """Give a message its state; False where nothing is left to do with the message."""
        try:
            memory = self._behind(job) or self._states.at_hand(job) or await self._read(job)
        except (StateError, StateChanged, Reject) as error:
            self._settler.failed(job, error)
            return False
        if job.state is SETTLED:
            return False  # it was let go meanwhile
        if memory is None:
            self._settler.repeated(job)
            return False
        job.memory = memory
        return True

    def _behind(self, job: Job) -> Remembers | None:
        """The state of a message that began behind another of its key.

        Raises:
            StateChanged: the one before has failed since.
        """
        if job.memory is not None and job.memory.void:
            raise StateChanged("the message before it failed")
        # Never from the bucket, also where the tenure is over: the one before may be on its way.
        return job.memory

    async def _read(self, job: Job) -> Remembers | None:
        """Read a message's state; None where that has seen the message."""
        context = job.context
        assert context is not None
        context.pause(time.monotonic())  # an outage is no time of the handler's
        try:
            return await self._states.open(job)
        finally:
            context.resume(time.monotonic())

    def _one_each(self, jobs: Sequence[Job]) -> list[Job]:
        """Those that are the first of their key; by the order of keys there are no others.

        What comes behind another of its key is given back until that one is settled.
        """
        first: dict[str, Job] = {}
        for job in jobs:
            assert job.memory is not None
            other = first.setdefault(job.memory.key, job)
            if other is not job:
                self._settler.failed(job, StateChanged("a message before it changes its state"))
        return list(first.values())

    @property
    def exhausted(self) -> bool:
        """Whether hung handlers hold too many threads."""
        return self._handling.exhausted

    def close(self) -> None:
        """Let threads end, and look no further."""
        self._handling.close()
        self._states.close()
