"""Ledger: how deliveries ended that brought no answer, which the server's own count cannot tell.

JetStream counts deliveries; an attempt is one that started and failed. So where a delivery ends
without an answer the ledger says how, before the message is given back: a failure (which is spent),
a snooze or a server that is away (which are not), and, in one record for all of them, what a stop
hands back, or a stage that became slow. Deliveries that nothing explains died with their worker, or
were forgotten by it: only these make a message suspect, and none of them is an attempt.

Nothing is written for a message that is answered, and nothing is read for one that comes for the
first time. Records live in the app's state bucket, under `<consumer>.ended.<sequence>` and
`<consumer>.back`, for as long as messages do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec
import structlog

from mqinfer.backoff import Attempts, Backoff
from mqinfer.bucket import change
from mqinfer.errors import MqinferError
from mqinfer.flow.past import NOTHING, Past
from mqinfer.identity import header_block

if TYPE_CHECKING:
    from mqinfer.bucket import Bucket
    from mqinfer.flow.job import Job
    from mqinfer.ports import Broker

log = structlog.get_logger("mqinfer.stage")

WAIT = Backoff(initial=0.5, maximum=5.0)  # while the bucket cannot be read
PATIENCE = 60.0  # seconds that a message is held until its end is written down
STOP = 3.0  # seconds that writing down what is handed back may hold up a stop
# Hand-backs that are remembered of one consumer: those of the newest messages. A server's message
# takes a megabyte, these about 300 kB.
REMEMBERED = 20_000


_encode = msgspec.json.Encoder().encode
_past = msgspec.json.Decoder(Past)
# Sequence -> deliveries; a negative one had begun.
_handed_back = msgspec.json.Decoder(dict[str, list[int]])


class Ledger:
    """The ledger of one consumer.

    Args:
        consumer: its name.
        name: of the bucket.
        bucket: to read, and to change what workers share.
        broker: to write what one worker alone knows.
    """

    def __init__(self, consumer: str, *, name: str, bucket: Bucket, broker: Broker):
        self._consumer = consumer
        self._subject = f"$KV.{name}."
        self._bucket = bucket
        self._broker = broker
        self._back: dict[str, list[int]] = {}
        self._back_read = float("-inf")
        self._reading = asyncio.Lock()

    async def explain(self, jobs: Sequence[Job], clock: Callable[[], float]) -> None:
        """Find out about the past of those among `jobs`, which are open, that came before."""
        again = [job for job in jobs if job.delivery.attempt > 1]
        for job, past in zip(again, await asyncio.gather(*map(self._load, again)), strict=True):
            earlier = job.delivery.attempt - 1
            if earlier > past.explained:
                back = set(await self._back_of(job, clock))
                back = {number for number in back if past.explained < abs(number) <= earlier}
                past = msgspec.structs.replace(
                    past,
                    tries=past.tries + sum(number < 0 for number in back),
                    unexplained=earlier - past.explained - len(set(map(abs, back))),
                )
            assert job.context is not None
            job.context.past = past

    def ended(self, job: Job, past: Past, then: Callable[[], None]) -> None:
        """Write down how a delivery ended, and go on when that is stored.

        Where it cannot be stored the message is given back all the same: it then has one delivery
        that nothing explains.
        """

        def stored(problem: Exception | None, _repeat: bool) -> None:
            if problem is not None:
                log.warning("the end of a delivery is not written down", reason=str(problem))
            then()

        key = f"{self._subject}{self._consumer}.ended.{job.delivery.sequence}"
        self._broker.publish(key, header_block({}), _encode(past), stored, timeout=PATIENCE)

    async def handed_back(self, jobs: Sequence[Job]) -> bool:
        """Write down that these deliveries are handed back, or let go unbegun.

        A stop does not wait long for it.

        Returns:
            Whether it is written.
        """
        new = [
            (str(job.delivery.sequence), job.delivery.attempt * (1 if job.started is None else -1))
            for job in jobs
        ]
        if not new:
            return True

        def added(value: bytes | None) -> bytes:
            known = _handed_back.decode(value) if value else {}
            for sequence, attempt in new:
                known[sequence] = [*known.get(sequence, ()), attempt]
            newest = sorted(known, key=int)[-REMEMBERED:]
            return _encode({sequence: known[sequence] for sequence in newest})

        try:
            async with asyncio.timeout(STOP):
                key = f"{self._consumer}.back"
                await change(self._bucket, key, added, what=f"what {self._consumer} hands back")
        except (MqinferError, TimeoutError) as error:
            log.warning(
                "hand-backs are not written down", consumer=self._consumer, reason=str(error)
            )
            return False
        return True

    async def _load(self, job: Job) -> Past:
        found = await self._read(f"{self._consumer}.ended.{job.delivery.sequence}")
        return _past.decode(found) if found else NOTHING

    async def _back_of(self, job: Job, clock: Callable[[], float]) -> list[int]:
        async with self._reading:
            # Whoever handed it back wrote that down first: what is read after its arrival has it.
            if self._back_read <= job.received:
                began = clock()
                found = await self._read(f"{self._consumer}.back")
                self._back = _handed_back.decode(found) if found else {}
                self._back_read = began
        return self._back.get(str(job.delivery.sequence), [])

    async def _read(self, key: str) -> bytes | None:
        """A value; trouble is waited out, for without its past a message may not be handled."""
        attempts = Attempts(WAIT)
        while True:
            await asyncio.sleep(attempts.next())
            try:
                found = await self._bucket.load(key)
            except MqinferError as error:
                log.warning("the ledger cannot be read", key=key, reason=str(error))
            else:
                return found[0] if found else None
