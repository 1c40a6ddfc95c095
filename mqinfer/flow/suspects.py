"""Suspects: messages that may have killed their worker are handled alone, and counted.

When a process dies, everything it had in flight is delivered again: the message that killed it
and its innocent neighbours look the same to the server. So a message that comes for the third
time goes through a lane, one at a time in the whole process, and its start is counted in the state
bucket *before* the handler runs; when the handler ends in any way the count begins anew. Only a
message that was in the lane at every death since its second delivery is dead-lettered as `killed`:
one that happened to be there when its process was killed from outside, or by a message that came
for the first time, is not.

A bucket is a stream with one message a key (ADR-8): `KV_<bucket>`, subjects `$KV.<bucket>.<key>`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mqinfer.flow.job import Job
    from mqinfer.ports import Broker
    from mqinfer.stage import Limits

# A single death is an everyday event (a deploy, an eviction); twice is a pattern.
PLAIN_ATTEMPTS = 2
FORGIVE = 5.0  # seconds that taking a mark back may hold up a stop


class Suspects:
    """The suspects of one stage in one process.

    Args:
        consumer: whose messages they are.
        bucket: where starts are counted, shared by all workers.
        broker: that keeps the bucket.
        limits: attempts.
        lane: held while a suspect is handled; one for all stages of a process, as a death is that
            of all of them.
    """

    def __init__(
        self, consumer: str, *, bucket: str, broker: Broker, limits: Limits, lane: asyncio.Lock
    ):
        self.lane = lane
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
            False if it was alone each time its worker died, and has used its attempts.
        """
        enough = max(1, self._limits.attempts - PLAIN_ATTEMPTS)
        key = f"{self._consumer}.{job.delivery.sequence}"
        deaths = int(await self._broker.bucket_get(self._bucket, key) or b"0")
        if deaths >= enough and job.delivery.attempt > self._limits.attempts:
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
