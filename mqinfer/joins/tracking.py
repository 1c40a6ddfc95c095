"""Tracking: what the tracker's runners do with records, and with roots whose deadline may pass.

Deadlines need no timer: a consumer of the roots gives them out in the order of their ages, and so
of their deadlines. The first ones are given back until they are due, those behind them wait in the
stream.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from itertools import chain
from typing import TYPE_CHECKING, cast
from weakref import WeakValueDictionary

import structlog

from mqinfer.completion import roots
from mqinfer.completion.assemble import Tale
from mqinfer.completion.progress import LATE
from mqinfer.completion.record import First, Payload
from mqinfer.errors import MqinferError
from mqinfer.identity import ANCESTORS, CONTENT_TYPE, MODELS, ROOTS, TRACE, TRACE_STATE

if TYPE_CHECKING:
    from mqinfer.completion.record import Record
    from mqinfer.completion.roots import Root
    from mqinfer.completion.tracker import Tracker
    from mqinfer.flow.job import Job
    from mqinfer.flow.settler import Settler
    from mqinfer.join import Join
    from mqinfer.stage import Limits

log = structlog.get_logger("mqinfer.joins")

AT_ONCE = 64  # roots of one batch that are worked on at a time
AGAIN = 5.0  # seconds after which comes again what could not be kept or told
# Records of a join that this version of the app does not have are left to workers of another one
# that runs beside it, in a deployment: given back every so often, until they are so old.
ELSEWHERE = 15.0
BESIDE = 300.0


class Inner:
    """What both have in common: they run no code of the user's, and spend no attempts."""

    runs_user_code = False
    exhausted = False
    weigh: Callable[[Job], int] | None = None

    def __init__(self, settler: Settler, limits: Limits):
        self._settler = settler
        self.concurrency = limits.concurrency or 1
        self.batch_size = limits.batch_size
        self.batch_wait = limits.batch_wait

    def close(self) -> None:
        """Nothing to release."""

    def _again(self, jobs: Sequence[Job], root: Root, error: Exception) -> None:
        known = isinstance(error, MqinferError)
        log.error(
            "who waits for a root waits on",
            root=str(root),
            reason=str(error),
            exc_info=not known and error,
        )
        for job in jobs:
            self._settler.hand_back(job, AGAIN)


class Records(Inner):
    """Records, by root: one write for all of a batch that are of one root.

    While one root is written, what comes of it waits, and is written together: two writes of one
    key at once would only be in each other's way.

    Args:
        tracker: that takes them in.
        settler: of the runner.
        limits: of the task.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        tracker: Tracker,
        settler: Settler,
        limits: Limits,
        now: Callable[[], float] = time.time,
    ):
        super().__init__(settler, limits)
        self._tracker = tracker
        self._now = now
        self._locks: WeakValueDictionary[Root, asyncio.Lock] = WeakValueDictionary()

    async def run(self, jobs: Sequence[Job]) -> None:
        """Take in the records; each is acknowledged when what follows of it is done."""
        by_root: dict[Root, list[Job]] = {}
        for job in jobs:
            found = roots.parse_one(job.delivery.headers.get(ROOTS, ""))
            if found is None:
                self._settler.answered(job, ())  # a stranger's: none of ours has no root
            elif not self._tracker.knows(found):
                self._pass(job)
            else:
                by_root.setdefault(found, []).append(job)
        turns = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for root, ours in by_root.items():
                group.create_task(self._take(root, ours, turns), name=f"root {root}")

    def _pass(self, job: Job) -> None:
        """Its join is new, and unknown here; or is no more, and then nobody takes it."""
        if self._now() - job.delivery.published / 1e9 < BESIDE:
            self._settler.hand_back(job, ELSEWHERE)
        else:
            self._settler.answered(job, ())

    async def _take(self, root: Root, jobs: Sequence[Job], turns: asyncio.Semaphore) -> None:
        lock = self._locks.setdefault(root, asyncio.Lock())
        async with turns, lock:
            told = [cast("tuple[Record, ...]", job.message) for job in jobs]
            payloads = [job.delivery.data for job in jobs]
            try:
                await self._tracker.take(root, list(chain.from_iterable(told)), payloads)
            except Exception as error:  # noqa: BLE001 - whatever it is, the records come again
                self._again(jobs, root, error)
            else:
                for job in jobs:
                    self._settler.answered(job, ())


class Deadlines(Inner):
    """Roots of one join, each looked at when its deadline is due.

    Args:
        join: that has the deadline.
        readers: the stages that read its roots.
        tracker: that is told.
        settler: of the runner.
        limits: of the task.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        join: Join,
        readers: Collection[str],
        tracker: Tracker,
        settler: Settler,
        limits: Limits,
        now: Callable[[], float] = time.time,
    ):
        super().__init__(settler, limits)
        self._join = join
        self._readers = readers
        self._tracker = tracker
        self._now = now

    async def run(self, jobs: Sequence[Job]) -> None:
        """Give back those that are not due; of the others, tell what there is."""
        due = []
        for job in jobs:
            left = job.delivery.published / 1e9 + (self._join.deadline or 0.0) - self._now()
            if left > 0:
                self._settler.hand_back(job, left)
            else:
                due.append(job)
        turns = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for job in due:
                group.create_task(self._late(job, turns), name=f"deadline of {job.id}")

    async def _late(self, job: Job, turns: asyncio.Semaphore) -> None:
        async with turns:
            kind = self._join.root.__mqinfer__.subject
            root = roots.root_of(kind, job.id, None)
            try:
                await self._tracker.late(root, self._join.name, self._unread(job))
            except Exception as error:  # noqa: BLE001 - whatever it is, the root comes again
                self._again([job], root, error)
            else:
                self._settler.answered(job, ())

    def _unread(self, job: Job) -> Tale:
        """What is told of a root with which no stage has begun."""
        headers = job.delivery.headers
        payload = Payload(job.delivery.data, headers.get(CONTENT_TYPE, ""))
        kept = (ANCESTORS, MODELS, TRACE, TRACE_STATE)
        first = First(
            readers=(),
            payload=0,
            published=job.delivery.published,
            headers={name: headers[name] for name in kept if name in headers},
            outer=headers.get(ROOTS, ""),
        )
        missing = dict.fromkeys(self._readers, 1)
        return Tale(job.id, first, payload, (), (), LATE, missing, headers.get(MODELS, ""))
