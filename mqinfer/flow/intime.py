"""In time: what a shadow answers too late is passed over, so that it never falls behind for long.

A shadow stands back behind what is live, and its model may be slow, or away. So a message that has
waited in the stream for longer than that is worth is not handled any more, and a handler that is at
work on one is cancelled: nothing gathers, however long an outage lasts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mqinfer.errors import Reject
from mqinfer.flow.job import Interruption

if TYPE_CHECKING:
    from mqinfer.flow.handling import Handling
    from mqinfer.flow.job import Job
    from mqinfer.flow.lanes import Turn
    from mqinfer.flow.settler import Settler


class TooLate(Reject):
    """A message that a shadow has not answered in time."""


def too_late() -> TooLate:
    """As it is told."""
    return TooLate("too late")


class InTime:
    """A stage's handling of a shadow's messages.

    Args:
        handling: of the stage.
        settler: of the stage.
        late: seconds from when the stream stored a message, after which it is passed over.
        busy: whether something live is being worked on in this process, which goes first.
        turn: when those may go on that stand back.
        alone: whether its handler is a coroutine for one message, which can be cancelled.
        clock: seconds since the epoch.
    """

    runs_user_code = True

    def __init__(
        self,
        handling: Handling,
        settler: Settler,
        *,
        late: float,
        busy: Callable[[], bool],
        turn: Turn,
        alone: bool,
        clock: Callable[[], float] = time.time,
    ):
        self.concurrency = handling.concurrency
        self.batch_size = handling.batch_size
        self.batch_wait = handling.batch_wait
        self.weigh: Callable[[Job], int] | None = handling.weigh
        self._handling = handling
        self._settler = settler
        self._late = late
        self._busy = busy
        self._turn = turn
        self._alone = alone
        self._clock = clock

    async def run(self, jobs: Sequence[Job]) -> None:
        """Handle those that are in time."""
        if self._busy():
            self._turn.live()
        await self._turn.room()
        now = self._clock()
        left = []
        for job in jobs:
            if self._until(job) > now:
                left.append(job)
            else:
                self._settler.failed(job, too_late())
        if len(left) == 1 and self._alone:
            timer = asyncio.get_running_loop().call_later(
                self._until(left[0]) - now, _interrupt, left[0]
            )
            try:
                await self._handling.run(left)
            finally:
                timer.cancel()
        elif left:
            await self._handling.run(left)

    def _until(self, job: Job) -> float:
        return job.delivery.published / 1e9 + self._late

    @property
    def exhausted(self) -> bool:
        """Whether hung handlers hold too many threads."""
        return self._handling.exhausted

    def close(self) -> None:
        """Let threads end."""
        self._handling.close()


def _interrupt(job: Job) -> None:
    if job.task is not None and job.interrupted is None:
        job.interrupted = Interruption.LATE
        job.task.cancel()
