"""Mailbox: where messages wait for a handler, and handlers for messages. No I/O."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from mqinfer.flow.job import SETTLED, Job


class Mailbox:
    """Jobs in the order of their arrival, and the handlers that wait for them.

    Args:
        batch_size: the most jobs that one handler takes at once.
        batch_wait: seconds that the first of a batch waits for more.
        more: whether more jobs may arrive before one of these leaves.
        clock: monotonic seconds.
        idle: called when a handler has to wait.
    """

    def __init__(
        self,
        batch_size: int,
        batch_wait: float,
        more: Callable[[], bool],
        clock: Callable[[], float],
        idle: Callable[[], None] = lambda: None,
    ):
        self._jobs: deque[Job] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._waking = False
        self._gathering = asyncio.Lock()
        self._batch_size = batch_size
        self._batch_wait = batch_wait
        self._more = more
        self._clock = clock
        self._on_idle = idle

    def put(self, job: Job) -> None:
        """A job has arrived."""
        self._jobs.append(job)
        if self._idle:
            self._wake()

    def put_first(self, job: Job) -> None:
        """A job has waited elsewhere: it goes before the others."""
        self._jobs.appendleft(job)
        if self._idle:
            self._wake()

    def pop(self) -> list[Job]:
        """The next job, if one is here and none is to be waited for; else nothing."""
        if not self._jobs or self._batch_size != 1:
            return []
        job = self._jobs.popleft()
        if self._jobs and self._idle:
            self._wake()  # in case this handler has to wait
        return [job]

    async def take(self) -> list[Job]:
        """The next job, or batch of jobs; waits for it."""
        try:
            if self._batch_size == 1:
                while not (job := self.pop()):
                    await self._sleep(None)
                return job
            async with self._gathering:  # one batch is gathered at a time
                return await self._gather()
        finally:
            if self._jobs:
                self._wake()  # in case this handler has to wait, or was cancelled when woken

    def take_last(self, count: int) -> list[Job]:
        """Take out as many of the newest, in their order, that nobody has looked at yet."""
        taken: list[Job] = []
        while len(taken) < count and self._jobs and self._jobs[-1].context is None:
            taken.append(self._jobs.pop())
        return taken[::-1]

    def empty(self) -> list[Job]:
        """Take out all that no handler has begun with."""
        left = list(self._jobs)
        self._jobs.clear()
        return left

    def forget_settled(self) -> None:
        """Take out what was let go meanwhile."""
        left = [job for job in self._jobs if job.state is not SETTLED]
        self._jobs.clear()
        self._jobs.extend(left)

    def _wake(self) -> None:
        """Wake one idle handler; it wakes the next, if there is still work when it has its own.

        A handler that never waits so empties the mailbox alone, without a switch for each message.
        """
        while self._idle and not self._waking:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._waking = True

    async def _sleep(self, timeout: float | None) -> None:
        """Until a job arrives, or `timeout` seconds have passed."""
        self._on_idle()
        waiter = asyncio.get_running_loop().create_future()
        self._idle.append(waiter)
        try:
            if timeout is None:
                await waiter
            else:
                async with asyncio.timeout(timeout):
                    await waiter
        except TimeoutError:
            pass
        finally:
            self._waking = False
            waiter.cancel()

    async def _gather(self) -> list[Job]:
        """A batch: full, or as old as a batch may get."""
        jobs = self._jobs
        while not jobs:
            await self._sleep(None)
        oldest = jobs[0].received
        while jobs and not self._full():
            left = oldest + self._batch_wait - self._clock()
            if left <= 0 or not self._more():
                break  # old enough, or no more can come before this batch is done
            await self._sleep(left)
        return self._batch()

    def _full(self) -> bool:
        """Whether a batch is here."""
        return len(self._jobs) >= self._batch_size

    def _batch(self) -> list[Job]:
        """Take out a batch, or as much of it as is here."""
        return [self._jobs.popleft() for _ in range(min(self._batch_size, len(self._jobs)))]

    def __len__(self) -> int:
        return len(self._jobs)

    def __repr__(self) -> str:
        return f"Mailbox({len(self._jobs)} jobs, {len(self._idle)} idle handlers)"


class Weighing(Mailbox):
    """A mailbox whose batches are counted in what the jobs hold: one may hold many rows.

    A batch is larger than `batch_size` only where a single job is.

    Args:
        weigh: what a job counts, at least 1.
        arguments: of a `Mailbox`.
    """

    def __init__(self, weigh: Callable[[Job], int], *arguments: Any):
        super().__init__(*arguments)
        self._weigh = weigh
        self._weight = 0  # of all that wait: a sum for each arrival would cost too much

    def put(self, job: Job) -> None:
        """A job has arrived."""
        self._weight += self._weigh(job)
        super().put(job)

    def put_first(self, job: Job) -> None:
        """A job has waited elsewhere."""
        self._weight += self._weigh(job)
        super().put_first(job)

    def take_last(self, count: int) -> list[Job]:
        """Take out as many of the newest."""
        taken = super().take_last(count)
        self._weigh_anew()
        return taken

    def empty(self) -> list[Job]:
        """Take out all."""
        self._weight = 0
        return super().empty()

    def forget_settled(self) -> None:
        """Take out what was let go meanwhile."""
        super().forget_settled()
        self._weigh_anew()

    def _weigh_anew(self) -> None:
        self._weight = sum(map(self._weigh, self._jobs))

    def _full(self) -> bool:
        return self._weight >= self._batch_size

    def _batch(self) -> list[Job]:
        taken: list[Job] = []
        weight = 0
        while self._jobs:
            more = self._weigh(self._jobs[0])
            if taken and weight + more > self._batch_size:
                break
            taken.append(self._jobs.popleft())
            weight += more
        self._weight -= weight
        return taken
