"""Suspects: messages that may have killed their worker are handled alone, and counted.

When a process dies, everything it had in flight is delivered again: the message that killed it
and its innocent neighbours look the same to the server. So a message of which two deliveries ended
without a word (see `ledger`) goes through a lane, one at a time in the whole process, and its start
is counted in the state bucket *before* the handler runs; when the handler ends in any way the count
begins anew. Only a message that was in the lane at every death since then is dead-lettered as
`killed`: one that happened to be there when its process was killed from outside, or by a message
that came for the first time, is not.

Two workers may hold the same message, where one lost its lease on it without knowing. Each adds its
own start to the count, and takes back no more than there were when it began.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from mqinfer.backoff import Attempts, Backoff
from mqinfer.bucket import change
from mqinfer.errors import MqinferError

if TYPE_CHECKING:
    from mqinfer.bucket import Bucket
    from mqinfer.flow.job import Job
    from mqinfer.stage import Limits

log = structlog.get_logger("mqinfer.stage")

# A single death is an everyday event (a deploy, an eviction); twice is a pattern.
PLAIN_ATTEMPTS = 2
FORGIVE = 5.0  # seconds that taking a mark back may hold up a stop
WAIT = Backoff(initial=0.5, maximum=5.0)  # while the bucket cannot be written


class Suspects:
    """The suspects of one stage in one process.

    Args:
        consumer: whose messages they are.
        bucket: where starts are counted, shared by all workers.
        limits: attempts.
        lane: held while a suspect is handled; one for all stages of a process, as a death is that
            of all of them.
    """

    def __init__(self, consumer: str, *, bucket: Bucket, limits: Limits, lane: asyncio.Lock):
        self.lane = lane
        self._consumer = consumer
        self._bucket = bucket
        self._limits = limits
        self._count = 0  # that the start of the suspect in the lane was written with

    def suspects(self, job: Job) -> bool:
        """Whether the message must go through the lane."""
        return job.past.unexplained >= min(PLAIN_ATTEMPTS, self._limits.attempts)

    async def may_run(self, job: Job) -> bool:
        """Mark the start of a suspect; call it with the lane held, right before the handler.

        Returns:
            False if it was alone each time its worker died, and has used its attempts.
        """
        enough = max(1, self._limits.attempts - PLAIN_ATTEMPTS)

        def started(value: bytes | None) -> bytes | None:
            deaths = int(value or b"0")
            if deaths >= enough and job.past.unexplained >= self._limits.attempts:
                return value
            return b"%d" % (deaths + 1)

        before, after = await self._change(job, started)
        self._count = int(after or b"0")
        return after != before

    async def survived(self, job: Job) -> None:
        """The handler ended in some way, a stop included: the count begins anew.

        What another worker added meanwhile stays.
        """
        count = self._count
        try:
            async with asyncio.timeout(FORGIVE):
                await self._change(job, lambda value: b"%d" % max(0, int(value or b"0") - count))
        except TimeoutError:
            pass  # no broker: the mark stays, and costs one attempt if the message comes back

    async def _change(
        self, job: Job, function: Callable[[bytes | None], bytes | None]
    ) -> tuple[bytes | None, bytes | None]:
        """Change the count of a message; trouble is waited out, for uncounted it may not run."""
        key = f"{self._consumer}.{job.delivery.sequence}"
        attempts = Attempts(WAIT)
        while True:
            await asyncio.sleep(attempts.next())
            try:
                return await change(self._bucket, key, function, what=f"the count of {key}")
            except MqinferError as error:
                log.warning("a suspect waits to be counted", message=key, reason=str(error))
