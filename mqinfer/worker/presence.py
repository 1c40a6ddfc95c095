"""Presence: a worker says every few seconds that it is there, and why it does not work.

Each has a value of its own in a bucket that forgets after ten minutes. One that stops in order
takes its value away; one that dies leaves it, so that people see who was lost, and when. No stage
reads this, and nothing waits for it: it is for people alone.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from mqinfer import plan
from mqinfer.bucket import change
from mqinfer.errors import MqinferError, PermissionDenied

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.bucket import Bucket
    from mqinfer.ports import Broker
    from mqinfer.streams import Streams
    from mqinfer.worker.work import Work

log = structlog.get_logger("mqinfer.worker")

EVERY: Final = 3.0  # seconds between signs of life
LOST: Final = 3 * EVERY + 1.0  # seconds of silence after which it is taken for lost
KEPT: Final = 600.0  # seconds for which the lost are remembered
_LAST = 2.0  # seconds that the last words may hold up a stop
_REASONS = 20


class Present(msgspec.Struct, frozen=True, omit_defaults=True):
    """A worker.

    Attributes:
        host: name of its machine.
        pid: of the process.
        started: when it began, in seconds since the epoch.
        stages: stages and sinks that it runs.
        run: the replay run that it works on, or "".
        reasons: why it cannot pull and publish now, a line each.
        in_flight: messages that it has.
        busy: the part of a processor that it used since it said so last.
        queueing: a model whose calls have waited here for seconds, or "".
        at: when it was last heard of, by the server's clock; whoever reads it puts it in.
    """

    host: str
    pid: int
    started: float
    stages: tuple[str, ...] = ()
    run: str = ""
    reasons: tuple[str, ...] = ()
    in_flight: int = 0
    busy: float = 0.0
    queueing: str = ""
    at: float = 0.0

    def lost(self, now: float) -> bool:
        """Whether it has been silent for too long.

        Args:
            now: seconds since the epoch, by the server's clock.
        """
        return now - self.at > LOST


_decode = msgspec.json.Decoder(Present).decode


def bucket_of(app: App, broker: Broker) -> Bucket:
    """Where workers say that they are there."""
    return broker.bucket(plan.workers_bucket(app), max_age=KEPT)


class Presence:
    """Says that one worker is there.

    Args:
        work: that it works on.
        broker: to NATS.
        look: gives why it cannot work, how many messages it has, and a model whose calls queue.
    """

    def __init__(
        self,
        work: Work,
        broker: Broker,
        look: Callable[[], tuple[Sequence[str], int, str]],
    ):
        self._bucket = bucket_of(work.app, broker)
        self._key = secrets.token_hex(8)
        self._me = Present(
            host=socket.gethostname(),
            pid=os.getpid(),
            started=round(time.time(), 1),
            stages=tuple(task.name for task in work.tasks),
            run=work.run_name,
        )
        self._look = look
        self._used = time.monotonic(), time.process_time()
        self._known: dict[str, tuple[bytes, int]] = {}
        self._saying = asyncio.Lock()  # or what is being said would come behind the last words
        self._left = False

    async def run(self) -> None:
        """Say it until cancelled."""
        there = False
        while True:
            try:
                if not there:
                    await self._bucket.ensure()
                    there = True
                async with self._saying:
                    if not self._left:
                        await self._say()
            except PermissionDenied as error:
                # It works all the same; people see less.
                log.info("this worker does not say that it is there", reason=str(error))
                return
            except MqinferError as error:
                log.debug("nobody hears that this worker is there", reason=str(error))
            await asyncio.sleep(EVERY)

    async def end(self) -> None:
        """Take leave."""
        try:
            async with asyncio.timeout(_LAST), self._saying:
                self._left = True
                await change(self._bucket, self._key, lambda _: None, what="this worker")
        except (TimeoutError, MqinferError) as error:
            log.debug("this worker did not take its leave", reason=str(error))

    async def _say(self) -> None:
        reasons, in_flight, queueing = self._look()
        now, used = time.monotonic(), time.process_time()
        busy = (used - self._used[1]) / max(now - self._used[0], 0.1)
        self._used = now, used
        me = msgspec.structs.replace(
            self._me,
            reasons=tuple(reasons)[:_REASONS],
            in_flight=in_flight,
            busy=round(busy, 2),
            queueing=queueing,
        )
        told = msgspec.json.encode(me)

        def newer(before: bytes | None) -> bytes:
            # What is the same is not written by `change`, and would grow old.
            return told + b" " if before == told else told

        await change(self._bucket, self._key, newer, what="this worker", known=self._known)


async def seen(app: App, streams: Streams) -> tuple[list[Present], float]:
    """The workers of an app that are there, and the lost, those that began last at the end.

    Returns:
        Them, and the time by the clock of the server that says when each was heard of.

    Raises:
        Unavailable: NATS does not answer.
    """
    stream = f"KV_{plan.workers_bucket(app)}"
    info = await streams.stream_info(stream)
    if info is None:
        return [], time.time()
    found = []
    newest = 0.0
    async for stored in streams.messages(stream):
        at = stored.time.timestamp()
        newest = max(newest, at)
        try:
            one = _decode(stored.data)
        except msgspec.MsgspecError:
            continue  # one that took its leave, or a stranger's
        found.append(msgspec.structs.replace(one, at=at))
    # Clocks differ by little; what was just stored is not of the future.
    return sorted(found, key=lambda one: one.started), max(time.time(), newest)
