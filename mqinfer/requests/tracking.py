"""Tracking: what a worker does for open requests: it repeats what may be lost, and ends the late.

A consumer of the bucket gives out each state as it is written. One that is open is given back until
its message is published again, after 5 seconds at most, and then until its deadline: of most
requests nothing is left by then, since a new state takes the place of the one that waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from mqinfer.completion.assemble import Tale
from mqinfer.completion.progress import LATE
from mqinfer.joins.tracking import AT_ONCE, Inner
from mqinfer.requests import ended, places, root
from mqinfer.requests import state as states
from mqinfer.requests.kept import root_of

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.bucket import Bucket
    from mqinfer.completion.tracker import Tracker
    from mqinfer.endpoint import Endpoint
    from mqinfer.flow.job import Job
    from mqinfer.flow.settler import Settler
    from mqinfer.ports import Broker
    from mqinfer.requests.seen import Seen
    from mqinfer.requests.state import State
    from mqinfer.stage import Limits

# Seconds after which the message of an open request is published again; half of its deadline, where
# that is less.
LOST = 5.0
_TIMEOUT = 30.0


class Open(Inner):
    """Looks after the requests of one endpoint.

    Args:
        app: whose.
        endpoint: of the requests.
        tracker: that tells of what there is at the deadline.
        roots: the bucket of what it knows.
        seen: is told of the states that are open.
        broker: to publish.
        settler: of the runner.
        limits: of the task.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        app: App,
        endpoint: Endpoint[Any],
        tracker: Tracker,
        *,
        roots: Bucket,
        seen: Seen,
        broker: Broker,
        settler: Settler,
        limits: Limits,
        now: Callable[[], float] = time.time,
    ):
        super().__init__(settler, limits)
        self._app = app
        self._subject = app.subject(endpoint.reads)
        self._kind = endpoint.root
        self._tracker = tracker
        self._roots = roots
        self._seen = seen
        self._broker = broker
        self._now = now

    async def run(self, jobs: Sequence[Job]) -> None:
        """Look at each state; it is acknowledged when nothing is left to do for it."""
        due = []
        for job in jobs:
            state = _read(job)
            if state is not None and job.delivery.attempt == 1:  # later it may be old
                self._seen.add(state, job.delivery.data, job.delivery.sequence)
            if state is None or not (state.open or state.webhook):
                self._settler.answered(job, ())
            elif state.open and (left := self._next(state)) > 0:
                self._settler.hand_back(job, left)  # as is most of what comes
            else:
                due.append((job, state))
        turns = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for job, state in due:
                group.create_task(self._one(job, state, turns), name="request")

    def _next(self, state: State) -> float:
        """The seconds until something is due, where nothing was done yet."""
        return again_at(state) - self._now()

    async def _one(self, job: Job, state: State, turns: asyncio.Semaphore) -> None:
        async with turns:
            try:
                left = await (self._look(state) if state.open else self._tell(state))
            except Exception as error:  # noqa: BLE001 - whatever it is, the state comes again
                self._again([job], root_of(state), error)
                return
        if left > 0:
            self._settler.hand_back(job, left)
        else:
            self._settler.answered(job, ())

    async def _look(self, state: State) -> float:
        """Do what is due; the seconds until there is something again, 0 for never."""
        now = self._now()
        found = root_of(state)
        if now >= state.deadline:
            message = places.message_id(state.id, state.created)
            unread = Tale(message, None, None, (), (), LATE, {}, "")  # where no stage has begun
            await self._tracker.late(found, self._kind, unread)
            return 0.0
        # The stream's window may have passed, if no worker looked for long. Then a second copy is
        # left out where it is known that a stage has the first; elsewhere it gives the same ids.
        if now < state.created + self._app.duplicate_window or not await self._begun(found.token):
            await root.publish(self._broker, state, self._subject, _TIMEOUT)
        return max(0.01, state.deadline - self._now())

    async def _tell(self, state: State) -> float:
        """Have an address told of the end."""
        if state.expires > self._now() and ended.told(self._app):
            await ended.publish(self._app, self._broker, state, _TIMEOUT)
        return 0.0

    async def _begun(self, token: str) -> bool:
        found = await self._roots.load(token)
        return found is not None and bool(found[0])


def again_at(state: State) -> float:
    """When the message of an open request is published again, in seconds since the epoch.

    Should it have been lost, there is to be time left for an answer.
    """
    return state.created + min(LOST, (state.deadline - state.created) / 2)


def _read(job: Job) -> State | None:
    """The state in the bucket; None for what is none."""
    try:
        return states.decode(job.delivery.data)
    except msgspec.MsgspecError:
        return None
