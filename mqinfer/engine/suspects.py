"""Suspects: messages that may have killed their worker are handled alone, and counted.

When a process dies, everything it had in flight is delivered again: the message that killed it
and its innocent neighbours look the same to the server. So a message that comes for the third
time goes through a lane of its own, one at a time, and its start is written to the state bucket
*before* the handler runs. If it comes back with such a mark, it was alone in the lane when the
process died: only such messages are dead-lettered as `killed`, once they have used their attempts.

A bucket is a stream with one message a key (ADR-8): `KV_<bucket>`, subjects `$KV.<bucket>.<key>`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mqinfer.engine.job import Job
    from mqinfer.engine.ports import Broker
    from mqinfer.stage import Limits

# A single death is an everyday event (a deploy, an eviction); twice is a pattern.
PLAIN_ATTEMPTS = 2
FORGIVE = 5.0  # seconds that taking a mark back may hold up a stop


class Suspects:
    """The lane of one stage in one process.

    Args:
        consumer: whose messages they are.
        bucket: where starts are counted, shared by all workers.
        broker: that keeps the bucket.
        limits: attempts.
    """

    def __init__(self, consumer: str, *, bucket: str, broker: Broker, limits: Limits):
        self.lane = asyncio.Lock()
        self._consumer = consumer
        self._bucket = bucket
        self._broker = broker
        self._limits = limits

    def suspects(self, job: Job) -> bool:
        """Whether the message must go through the lane."""
        return job.delivery.attempt > min(PLAIN_ATTEMPTS, self._limits.attempts)

    async def may_run(self, job: Job) -> bool:
        """Mark the start of a suspect; call it with the lane held, right before the handler.

        Returns:
            False if it was alone when its worker died, and has used its attempts.
        """
        key = f"{self._consumer}.{job.delivery.sequence}"
        deaths = int(await self._broker.bucket_get(self._bucket, key) or b"0")
        if deaths and job.delivery.attempt > self._limits.attempts:
            return False
        await self._broker.bucket_put(self._bucket, key, b"%d" % (deaths + 1))
        return True

    async def survived(self, job: Job) -> None:
        """The handler ended in some way, a stop included: take the mark of its start back."""
        key = f"{self._consumer}.{job.delivery.sequence}"
        try:
            async with asyncio.timeout(FORGIVE):
                await self._broker.bucket_put(self._bucket, key, b"0")
        except TimeoutError:
            pass  # no broker: the mark stays, and costs one attempt if the message comes back
