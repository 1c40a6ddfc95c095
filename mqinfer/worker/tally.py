"""Tally: what left a consumer without an answer or a dead letter of its own, told to `status`.

A message that was passed over, an output that the stream had already, a dead letter that nobody can
read, a delivery that was let go: each is counted in the process, and what is new is added to the
app's state bucket once a second and at the end. Where nothing of it happens nothing is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec
import structlog

from mqinfer.bucket import change
from mqinfer.errors import MqinferError

if TYPE_CHECKING:
    from mqinfer.bucket import Bucket
    from mqinfer.observe import StageMetrics

log = structlog.get_logger("mqinfer.worker")

KEY = "tally"
EVERY = 1.0  # seconds between looks
LAST = 5.0  # seconds that the last words may hold up a stop


class Counts(msgspec.Struct, omit_defaults=True):
    """What is counted.

    Attributes:
        skipped: messages acknowledged without a handler: they were for another consumer.
        repeats: outputs that JetStream dropped, since it had one of their id.
        dropped: messages that ended with a line in the log alone.
        lapsed: deliveries let go unbegun, since the event loop stood still for too long.
    """

    skipped: int = 0
    repeats: int = 0
    dropped: int = 0
    lapsed: int = 0

    def plus(self, other: Counts, sign: int = 1) -> Counts:
        """The sum, or with -1 the difference."""
        return Counts(
            self.skipped + sign * other.skipped,
            self.repeats + sign * other.repeats,
            self.dropped + sign * other.dropped,
            self.lapsed + sign * other.lapsed,
        )


def read(value: bytes | None) -> Counts:
    """Counts as they lie in the bucket; what is none counts nothing."""
    try:
        return msgspec.json.decode(value or b"{}", type=Counts)
    except msgspec.MsgspecError:
        return Counts()


class Tally:
    """Brings the counts of one process to the bucket.

    Args:
        bucket: of the app's state.
        sources: gives each consumer at work here with its metrics.
    """

    def __init__(self, bucket: Bucket, sources: Callable[[], Iterable[tuple[str, StageMetrics]]]):
        self._bucket = bucket
        self._sources = sources
        self._told: dict[str, Counts] = {}
        self._telling = asyncio.Lock()  # or the last words would repeat what is being told

    async def run(self) -> None:
        """Tell what is new, until cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            async with self._telling:
                await self._tell()

    async def end(self) -> None:
        """Tell the rest."""
        try:
            async with asyncio.timeout(LAST), self._telling:
                await self._tell()
        except TimeoutError:
            log.warning("the last counts were not told: NATS does not answer")

    async def _tell(self) -> None:
        for consumer, metrics in self._sources():
            now = Counts(
                metrics.skips, metrics.duplicate_publishes, metrics.dropped, metrics.lapses
            )
            new = now.plus(self._told.get(consumer, Counts()), -1)
            if new == Counts():
                continue

            def add(value: bytes | None, new: Counts = new) -> bytes:
                return msgspec.json.encode(read(value).plus(new))

            try:
                await change(self._bucket, f"{consumer}.{KEY}", add, what=f"counts of {consumer}")
            except MqinferError as error:
                log.debug("counts wait to be told", consumer=consumer, reason=str(error))
            else:
                self._told[consumer] = now
