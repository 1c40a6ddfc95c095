"""Looks: what many watch is looked at once, and not at all while nobody does.

Nothing runs on its own: whoever wants to see something newer waits until it is due, and the first
one who finds it due has it made, for all.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from mqinfer.errors import ConfigurationError, MqinferError, Unavailable

log = structlog.get_logger("mqinfer.console")

_MOST: Final = 200  # things that are kept at a time
_LONGEST: Final = 30.0  # seconds that a look may take

Make = Callable[[], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Seen:
    """One look.

    Attributes:
        at: when it was done, in monotonic seconds.
        state: what was seen; empty where there is a problem.
        problem: why nothing was seen, or None.
        asked_wrongly: whether what was asked for is the reason: no later look sees more.
        drawn: what was made of it, so that it is made once.
    """

    at: float
    state: Mapping[str, Any]
    problem: str | None = None
    asked_wrongly: bool = False
    drawn: dict[Hashable, str] = field(default_factory=dict)

    def found(self) -> Mapping[str, Any]:
        """What was seen.

        Raises:
            ConfigurationError: what was asked for is not there.
            Unavailable: why nothing was seen.
        """
        if self.problem is None:
            return self.state
        raise (ConfigurationError if self.asked_wrongly else Unavailable)(self.problem)


class Look:
    """One thing that is looked at.

    Args:
        make: looks.
        every: seconds between looks.
        group: that looks run in, since whoever asked may be gone before it is done.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        make: Make,
        every: float,
        group: asyncio.TaskGroup,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._make = make
        self._every = every
        self._group = group
        self._clock = clock
        self._seen: Seen | None = None
        self._making: asyncio.Task[Seen] | None = None

    async def now(self) -> Seen:
        """The last one, if no newer one is due, else a new one."""
        if self._seen is not None and self._clock() < self._seen.at + self._every:
            return self._seen
        return await self._new()

    async def soon(self, most: float) -> Seen:
        """The last one if it is that many seconds old or less, and else a new one.

        Where a newer one is due it is made meanwhile, for whoever asks next.
        """
        if self._seen is None or self._clock() >= self._seen.at + max(most, self._every):
            return await self.now()
        if self._clock() >= self._seen.at + self._every:
            self._begin()
        return self._seen

    def known(self) -> Seen | None:
        """The last one, None before the first; where a newer one is due it is made meanwhile."""
        if self._seen is None or self._clock() >= self._seen.at + self._every:
            self._begin()
        return self._seen

    async def after(self, last: Seen) -> Seen:
        """One that is newer, once it is due."""
        if self._seen is not None and self._seen.at > last.at:
            return self._seen
        await asyncio.sleep(max(0.0, last.at + self._every - self._clock()))
        return await self.now()

    def close(self) -> None:
        """End what goes on."""
        if self._making is not None:
            self._making.cancel()

    async def _new(self) -> Seen:
        return await asyncio.shield(self._begin())

    def _begin(self) -> asyncio.Task[Seen]:
        if self._making is None or self._making.done():
            self._making = self._group.create_task(self._look(), name="look")
        return self._making

    async def _look(self) -> Seen:
        problem: str | None = None
        asked_wrongly = False
        state: Mapping[str, Any] = {}
        try:
            async with asyncio.timeout(_LONGEST):
                state = await self._make()
        except MqinferError as error:
            problem, asked_wrongly = str(error), isinstance(error, ConfigurationError)
        except TimeoutError:
            problem = f"there is no answer within {_LONGEST:.0f} s"
        except Exception as error:  # it ends no other look
            log.exception("a look failed")
            problem = f"a fault of the console's, which is in its log: {type(error).__name__}"
        self._seen = Seen(self._clock(), state, problem, asked_wrongly)
        return self._seen


class Looks:
    """What is looked at, by what it is; what nobody has asked for the longest is let go.

    Args:
        group: that looks run in.
    """

    def __init__(self, group: asyncio.TaskGroup):
        self._group = group
        self._known: OrderedDict[Hashable, Look] = OrderedDict()

    def close(self) -> None:
        """End those that go on: nobody is left who would see them."""
        for look in self._known.values():
            look.close()

    def of(self, key: Hashable, make: Make, every: float) -> Look:
        """The look of this key; made where there is none."""
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = Look(make, every, self._group)
        self._known.move_to_end(key)
        while len(self._known) > _MOST:
            self._known.popitem(last=False)
        return found
