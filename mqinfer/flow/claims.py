"""Claims: how long a stage's messages are still this worker's, where the event loop stands still.

A claim ends `ack_wait` after the server last heard of the message; then it goes to another worker.
While the loop runs the runner's tick renews. While it stands still a thread does
(`worker.renewals`), which asks here what is due. When it turns again, what was not begun with and
may be another's by now is let go without a word to the server, so that nothing is handled twice;
the ledger is told, so that this counts as nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import structlog

from mqinfer.flow.job import WAITING, Job

if TYPE_CHECKING:
    from mqinfer.flow.beat import Beat
    from mqinfer.flow.ledger import Ledger
    from mqinfer.flow.policy import Claim, Policy
    from mqinfer.flow.settler import Settler

log = structlog.get_logger("mqinfer.stage")

# The part of `ack_wait` after which a claim that was not renewed counts as over. The rest is for
# clocks that differ in pace and for the way of the delivery.
HOLD = 0.8
NAMED = 10  # sequences in one line of the log


class Claims:
    """The claims of one stage in one process.

    Args:
        stage: its name.
        ack_wait: of its consumer, in seconds.
        jobs: what it holds, by sequence.
        beat: of the loop.
        settler: lets go.
        ledger: is told; None for a sink, which spends no attempts.
        policy: of ordered or replayed work.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        stage: str,
        ack_wait: float,
        *,
        jobs: Mapping[int, Job],
        beat: Beat,
        settler: Settler,
        ledger: Ledger | None,
        policy: Policy | None,
        clock: Callable[[], float],
    ):
        self.ack_wait = ack_wait
        self.due_after = ack_wait / 3
        self._stage = stage
        self._jobs = jobs
        self._beat = beat
        self._settler = settler
        self._ledger = ledger
        self._policy = policy
        self._clock = clock
        self._let_go: list[Job] = []
        self._telling: asyncio.Task[None] | None = None

    # --- of a thread, while the loop stands still ------------------------------------------------

    def due(self, now: float) -> list[Claim]:
        """What is to be renewed now, and still is this worker's."""
        try:
            jobs = list(self._jobs.values())
            beside = list(self._policy.claims(now)) if self._policy is not None else []
        except RuntimeError:  # the loop turns again, and is quicker
            return []
        found: list[Claim] = [*beside]
        for job in jobs:
            if self._policy is not None and not self._policy.owns(job, now):
                continue
            if self.due_after <= now - self._heard(job) < self.ack_wait:
                found.append(job)
        return found

    def _heard(self, job: Job) -> float:
        """When the server last heard of a message."""
        if self._policy is None:
            return job.pulsed
        return min(job.pulsed, self._policy.heard(job))

    def renewed(self, job: Claim, asked: float) -> None:
        """The server has confirmed the renewal that it was asked for at `asked`."""
        if isinstance(job, Job):
            job.pulsed = max(job.pulsed, asked)
        if self._policy is not None:
            self._policy.renewed(job, asked)

    # --- of the loop, when it turns again --------------------------------------------------------

    def takes(self, job: Job, now: float) -> bool:
        """Whether a message that was read late is this worker's; if not, it is let go.

        It may have lain in the socket since `sent_after`, and its claim with it.
        """
        job.pulsed = self._beat.sent_after
        if now - job.pulsed <= HOLD * self.ack_wait:
            return True
        self.let_go(job)
        return False

    def turned(self) -> None:
        """The loop turns again: let go of what was not begun with and may be another's by now."""
        end = self._clock() - HOLD * self.ack_wait
        for job in list(self._jobs.values()):
            if job.state is WAITING and self._heard(job) < end:
                self.let_go(job)

    def let_go(self, job: Job) -> None:
        """Forget a message: the server gives it to somebody, or has done so."""
        self._settler.let_go(job)
        self._let_go.append(job)
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell(), name=f"{self._stage} lets go")

    async def _tell(self) -> None:
        try:
            while self._let_go:
                jobs, self._let_go = self._let_go, []
                log.warning(
                    "let go: the event loop stood still, and these may be another worker's by now",
                    stage=self._stage,
                    messages=len(jobs),
                    sequences=[job.delivery.sequence for job in jobs[:NAMED]],
                )
                if self._ledger is not None:
                    await self._ledger.handed_back(jobs)
        finally:
            self._telling = None

    async def told(self) -> None:
        """Return when the ledger knows of all that was let go."""
        if self._telling is not None:
            await asyncio.wait({self._telling})
