"""Passing over: what comes of a request that has ended is not worked on any more.

A stage below an endpoint looks at the deadline in a message's headers before its handler is called,
and hears of requests that are canceled while it is connected: their messages are settled without an
answer, and coroutines at work on them are cancelled. Whoever misses the word works for nothing, and
changes nothing: a request ends once.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from mqinfer.completion import roots
from mqinfer.endpoint import CHUNK, ROOT
from mqinfer.flow.job import Interruption
from mqinfer.identity import DEADLINE, ROOTS
from mqinfer.requests import places

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.flow.handling import Handling
    from mqinfer.flow.job import Job
    from mqinfer.flow.settler import Settler
    from mqinfer.ports import Core

_REMEMBERED: Final = 10_000  # canceled requests


class Canceled:
    """The requests that a worker heard were canceled, and what it has at work for others."""

    def __init__(self) -> None:
        self._tokens: OrderedDict[str, None] = OrderedDict()
        self._working: dict[str, set[Job]] = {}

    async def listen(self, app: App, core: Core) -> None:
        """Hear of what is canceled, until this is cancelled."""
        async with core.listen(places.canceled(app), self._heard):
            await asyncio.Event().wait()

    def _heard(self, subject: str, _data: bytes, _header: bytes) -> None:
        token = subject.rpartition(".")[2]
        self._tokens[token] = None
        if len(self._tokens) > _REMEMBERED:
            self._tokens.popitem(last=False)
        for job in tuple(self._working.get(token, ())):
            interrupt(job, Interruption.CANCELED)

    def __contains__(self, token: str) -> bool:
        return token in self._tokens

    def begin(self, token: str, job: Job) -> None:
        """A coroutine works on a message of a request."""
        self._working.setdefault(token, set()).add(job)

    def end(self, token: str, job: Job) -> None:
        """It does no more."""
        working = self._working.get(token)
        if working is not None:
            working.discard(job)
            if not working:
                del self._working[token]


def interrupt(job: Job, why: Interruption) -> None:
    """Cancel the coroutine that works on a message."""
    if job.task is not None and job.interrupted is None:
        job.interrupted = why
        job.task.cancel()


class Passing:
    """A stage's handling, without the messages that nobody waits for.

    Args:
        handling: of the stage.
        settler: of the stage.
        canceled: what this worker knows.
        alone: whether its handler is a coroutine for one message, which can be cancelled.
    """

    runs_user_code = True

    def __init__(self, handling: Handling, settler: Settler, canceled: Canceled, *, alone: bool):
        self.concurrency = handling.concurrency
        self.batch_size = handling.batch_size
        self.batch_wait = handling.batch_wait
        self.weigh = handling.weigh
        self._handling = handling
        self._settler = settler
        self._canceled = canceled
        self._alone = alone

    async def run(self, jobs: Sequence[Job]) -> None:
        """Handle what is waited for."""
        asked = [job for job in jobs if ROOTS in job.delivery.headers]
        if not asked:
            await self._handling.run(jobs)
            return
        passed = {job.delivery.sequence for job in asked if self._passes(job)}
        left = [job for job in jobs if job.delivery.sequence not in passed]
        if len(left) == 1 and self._alone and left[0] in asked:
            await self._guarded(left[0])
        elif left:
            await self._handling.run(left)

    async def _guarded(self, job: Job) -> None:
        """Handle a message of a request, which may end meanwhile."""
        root = request_of(job)
        if root is None:
            await self._handling.run([job])
            return
        deadline = _deadline(job)
        timer = None
        if deadline is not None:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(deadline - time.time(), interrupt, job, Interruption.EXPIRED)
        self._canceled.begin(root.token, job)
        try:
            await self._handling.run([job])
        finally:
            self._canceled.end(root.token, job)
            if timer is not None:
                timer.cancel()

    def _passes(self, job: Job) -> bool:
        """Settle a message that nobody waits for."""
        root = request_of(job)
        if root is None:
            return False
        if root.token in self._canceled:
            self._settler.unwanted(job, Interruption.CANCELED)
            return True
        deadline = _deadline(job)
        if deadline is not None and deadline <= time.time():
            self._settler.unwanted(job, Interruption.EXPIRED)
            return True
        return False

    @property
    def exhausted(self) -> bool:
        """Whether hung handlers hold too many threads."""
        return self._handling.exhausted

    def close(self) -> None:
        """Let threads end."""
        self._handling.close()


def request_of(job: Job) -> roots.Root | None:
    """The request, or the chunk of a job, that a message came of, or None."""
    told = job.delivery.headers.get(ROOTS)
    return None if told is None else _request(told)


@lru_cache(maxsize=1024)  # a message is looked at several times, and many came of one
def _request(told: str) -> roots.Root | None:
    found = roots.parse(told, None)
    return next((root for root in found if root.kind.startswith((ROOT, CHUNK))), None)


def _deadline(job: Job) -> float | None:
    """When nobody wants it any more, in seconds since the epoch."""
    try:
        found = float(job.delivery.headers.get(DEADLINE, ""))
    except ValueError:
        return None
    return found if math.isfinite(found) else None
