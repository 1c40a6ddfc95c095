"""Keeper: sets the ticks of an app's schedules ahead of their time, beside the work of a worker.

Every worker keeps the schedules of its stages; what they do together is one tick for each time: a
tick is a timer in a place that its time alone names (`places`), and a place takes one message.
"""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import structlog

from mqinfer.bucket import change
from mqinfer.codec import CONTENT_TYPES, Codec
from mqinfer.errors import ConflictError, MqinferError, Unavailable
from mqinfer.identity import CONTENT_TYPE, MSG_ID, header_block
from mqinfer.tick import tick_id, tick_of
from mqinfer.timers import places
from mqinfer.timers.record import Clock, Record, ahead, ticks, without
from mqinfer.timers.setter import schedule as scheduled
from mqinfer.timers.table import write

if TYPE_CHECKING:
    from mqinfer.bucket import Bucket
    from mqinfer.schedule import Schedule
    from mqinfer.timers.table import Table

log = structlog.get_logger("mqinfer.timers")

LOOK = 15.0  # seconds between looks, where nothing is due before
AGAIN = 1.0  # seconds until a server that did not answer is asked again
# Seconds after which a schedule of another version is abandoned that is not kept; at two looks, for
# where the server was away for longer, who keeps it is as late.
ABANDONED = 60.0


def read(value: bytes | None) -> Record | None:
    """What lies in the bucket."""
    return msgspec.json.decode(value, type=Record) if value else None


class Keeper:
    """The schedules of an app, as one worker keeps them.

    Args:
        app: its name.
        schedules: of all its stages.
        table: of its timers.
        bucket: of the records.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        app: str,
        schedules: Mapping[str, Schedule],
        table: Table,
        bucket: Bucket,
        *,
        now: Callable[[], float] = time.time,
    ):
        self._app = app
        self._schedules = schedules
        self._table = table
        self._bucket = bucket
        self._now = now
        self._started = now()
        self._codec = Codec(None)
        self._set: dict[str, Record] = {}  # stage -> record whose ticks are known to be set
        self._overdue: dict[str, Record] = {}  # stage -> one of another version, not kept

    async def begin(self) -> None:
        """Take back the schedules that the app has no more.

        Raises:
            Unavailable: the server does not answer.
        """
        await self._bucket.ensure()
        for stage in await self._bucket.names():
            if stage in self._schedules:
                continue
            before, after = await change(
                self._bucket, stage, self._without, what=f"the schedule of {stage}"
            )
            record = read(after)
            if record is not None and not record.text:
                await self._drop(stage, record)
                if before != after:
                    log.info("a schedule is no more", stage=stage)

    async def keep(self, stage: str) -> None:
        """Keep the schedule of one stage, until cancelled."""
        while True:
            try:
                wait = await self.look(stage)
            except (Unavailable, ConflictError) as error:
                log.info("a schedule waits", stage=stage, reason=str(error))
                wait = AGAIN
            except MqinferError as error:
                log.warning("a schedule cannot be kept", stage=stage, reason=str(error))
                wait = LOOK
            await asyncio.sleep(wait)

    async def look(self, stage: str) -> float:
        """Set what is to be set; the seconds until the next look.

        Raises:
            Unavailable: the server does not answer.
            MqinferError: it refuses.
        """
        schedule = self._schedules[stage]
        _, value = await change(
            self._bucket, stage, partial(self._ahead, stage), what=f"the schedule of {stage}"
        )
        record = read(value)
        assert record is not None
        self._overdue.pop(stage, None)
        if record.mark != schedule.mark:  # another version of the app decides
            if record.text and self._now() > record.last + ABANDONED:
                self._overdue[stage] = record
            return LOOK
        if self._set.get(stage) != record:
            await self._drop(stage, record)
            for tick in ticks(record, schedule):
                await self._tick(stage, record, tick)
            self._set[stage] = record
        return min(max(record.last - self._now(), 0.0), LOOK)

    def _ahead(self, stage: str, value: bytes | None) -> bytes | None:
        before, schedule = read(value), self._schedules[stage]
        if before is not None and before.mark == schedule.mark and before != self._set.get(stage):
            # Whoever wrote it may have died before its ticks were set: they come first.
            return value
        abandoned = before is not None and before == self._overdue.get(stage)
        clock = Clock(self._now(), self._started)
        after = ahead(before, schedule, clock, abandoned=abandoned)
        return value if after is None or after == before else msgspec.json.encode(after)

    def _without(self, value: bytes | None) -> bytes | None:
        before = read(value)
        if before is None:
            return None
        after = without(before, Clock(self._now(), self._started))
        return value if after == before else msgspec.json.encode(after)

    async def _drop(self, stage: str, record: Record) -> None:
        """Take back what waits of the schedules before."""
        for mark in record.former:
            await self._table.drop(f"{places.stream_of(self._app)}.{stage}.*.at.{mark}")

    async def _tick(self, stage: str, record: Record, at: datetime.datetime) -> None:
        """Set a tick, unless it is set, or has come, under this schedule or another."""
        kind = tick_of(stage)
        identity = tick_id(stage, at)
        payload, wire = self._codec.write(kind(at))
        place = places.place(self._app, stage, places.slot_of(identity, None))
        order = (0, int(record.since * 1e6))
        told = {places.OPERATION: record.mark, places.ORDER: places.format_order(order)}
        block = header_block({CONTENT_TYPE: CONTENT_TYPES[wire], MSG_ID: identity})
        subject = f"{self._app}.{kind.__mqinfer__.subject}".encode()
        await write(
            self._table,
            place,
            f"at.{record.mark}",
            scheduled(block, place, self._app, subject, at.timestamp(), told),
            payload,
            operation=record.mark,
            order=order,
            once=True,
        )
