"""Load: whether an endpoint can take more, and if not, when to ask again.

The backlog is what waits, or is at work, before the stages that an endpoint feeds; what comes of
jobs is none of it, since nothing live waits behind that. It is looked at four times a second at
most, whoever asks. When it is too large, the time until there is room follows from it and from how
fast it was worked off lately.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mqinfer import plan
from mqinfer.errors import PermissionDenied, Unavailable
from mqinfer.gateway.problems import away, busy
from mqinfer.joinwiring import below

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.ports import Broker
    from mqinfer.specs import ConsumerSpec

FRESH: Final = 0.25  # seconds for which a look counts
UNREAD: Final = 2.0  # seconds for which it does where a consumer is made for it: none is there yet
WINDOW: Final = 30.0  # seconds that the rate is taken over
LONGEST: Final = 300  # seconds to ask again in, at most
UNKNOWN: Final = 5  # seconds to ask again in, where no rate is known
_SPREAD = 0.2  # of the time, so that not all come back at once


@dataclass(slots=True)
class _Watched:
    """The consumers that an endpoint feeds, and what was seen of them."""

    specs: list[ConsumerSpec]
    backlog: int = 0
    stale: float = -math.inf
    seen: deque[tuple[float, int]] = field(default_factory=deque)
    look: asyncio.Task[None] | None = None


class Load:
    """The load of an app's endpoints.

    Args:
        app: whose.
        broker: to ask.
        limit: messages that may be open for one endpoint; None is no limit.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        app: App,
        broker: Broker,
        limit: int | None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._broker = broker
        self._limit = limit
        self._clock = clock
        self._watched: dict[str, _Watched] = {}
        for name, endpoint in app.endpoints.items():
            fed = [stage.name for stage in below(app.stages, endpoint.reads, own=True)]
            specs = [
                spec
                for task in plan.tasks(app, fed)
                for spec in plan.consumer_specs(app, task)
                if spec.name != plan.bulk_consumer(app, task)
            ]
            self._watched[name] = _Watched(specs)

    async def check(self, endpoint: str) -> None:
        """Return if the endpoint can take a request.

        Raises:
            Problem: it cannot now, and when to ask again.
        """
        if (reason := self._broker.blocked) is not None:
            raise away(f"no request can be accepted now: {reason}")
        if self._broker.full:
            raise away("no request can be accepted now: too many wait to be stored")
        if self._limit is None:
            return
        try:
            backlog = await self.backlog(endpoint)
        except Unavailable as error:
            raise away(f"no request can be accepted now: {error}") from None
        if backlog < self._limit:
            return
        rate = self.rate(endpoint)
        raise busy(
            f"{backlog:,} messages wait for the stages behind {endpoint}, and {self._limit:,} may",
            seconds_until(backlog - self._limit + 1, rate, random.random()),
        )

    async def backlog(self, endpoint: str) -> int:
        """Messages that wait or are at work for the stages that an endpoint feeds.

        Raises:
            Unavailable: NATS does not answer.
        """
        watched = self._watched[endpoint]
        if self._clock() >= watched.stale:
            if watched.look is None:
                watched.look = asyncio.create_task(self._look(watched), name="load")
            # One look is for all who ask meanwhile; who goes away does not end it for the others.
            await asyncio.shield(watched.look)
        return watched.backlog

    def rate(self, endpoint: str) -> float:
        """Messages a second that were worked off lately; 0 where it is not known."""
        seen = self._watched[endpoint].seen
        if len(seen) < 2 or seen[-1][0] <= seen[0][0]:
            return 0.0
        return max(0.0, (seen[-1][1] - seen[0][1]) / (seen[-1][0] - seen[0][0]))

    async def _look(self, watched: _Watched) -> None:
        try:
            found = await asyncio.gather(*(self._one(spec) for spec in watched.specs))
            now = self._clock()
            watched.backlog = sum(lag for lag, _ in found)
            watched.stale = now + (UNREAD if any(done is None for _, done in found) else FRESH)
            watched.seen.append((now, sum(done or 0 for _, done in found)))
            while watched.seen[0][0] < now - WINDOW:
                watched.seen.popleft()
        finally:
            watched.look = None

    async def _one(self, spec: ConsumerSpec) -> tuple[int, int | None]:
        """The backlog of a consumer, and how many deliveries of it have ended.

        None: no worker ever ran, and all of it waits.
        """
        state = await self._broker.consumer_state(spec.stream, spec.name)
        if state is None:
            try:
                return await self._broker.pending(spec), None
            except PermissionDenied:  # to make one, which is how it is counted
                return 0, None
        return state.lag, state.deliveries - state.unacknowledged


def seconds_until(excess: int, rate: float, chance: float) -> int:
    """The seconds until there is room.

    Args:
        excess: messages that must be worked off first.
        rate: of them a second; 0 is not known.
        chance: 0 to 1, by which the answers are spread.
    """
    seconds = UNKNOWN if rate <= 0 else min(excess / rate, LONGEST)
    return max(1, math.ceil(seconds * (1 + _SPREAD * chance)))
