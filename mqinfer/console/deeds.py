"""Deeds: what was begun on a page and takes longer than an answer may; the page shows how it goes.

A deed goes on whoever looks, as long as the console runs. Whatever is done so can be done again: a
console that ends in the middle leaves it as a command does that is killed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Final

import structlog

from mqinfer.errors import ConfigurationError, MqinferError

log = structlog.get_logger("mqinfer.console")

_KEPT: Final = 600.0  # seconds that one is remembered after its end

# What it did in words, and further lines.
Told = tuple[str, tuple[str, ...]]


@dataclass(slots=True)
class Deed:
    """One of them.

    Attributes:
        what: is being done, in words.
        began: seconds since the epoch.
        ended: the same; 0 while it goes on.
        said: what became of it.
        more: further lines.
        bad: whether it failed.
        over: is set at its end.
    """

    what: str
    began: float
    ended: float = 0.0
    said: str = ""
    more: tuple[str, ...] = ()
    bad: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Deeds:
    """All that go on, and those that ended of late.

    Args:
        group: that they run in.
    """

    def __init__(self, group: asyncio.TaskGroup):
        self._group = group
        self._known: dict[Hashable, Deed] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """End what goes on."""
        for task in self._tasks:
            task.cancel()

    def of(self, key: Hashable) -> Deed | None:
        """The last one that was begun of something, if it is not long over."""
        found = self._known.get(key)
        if found is not None and found.ended and time.time() > found.ended + _KEPT:
            del self._known[key]
            return None
        return found

    def begin(self, key: Hashable, what: str, work: Callable[[], Awaitable[Told]]) -> Deed:
        """Begin one.

        Args:
            key: of what it is done to: one at a time.
            what: is done, in words.
            work: does it.

        Raises:
            ConfigurationError: another one goes on.
        """
        other = self.of(key)
        if other is not None and not other.ended:
            raise ConfigurationError(f"{other.what} goes on: wait until it is done")
        deed = self._known[key] = Deed(what, time.time())
        task = self._group.create_task(self._do(deed, work), name="deed")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return deed

    async def _do(self, deed: Deed, work: Callable[[], Awaitable[Told]]) -> None:
        try:
            deed.said, deed.more = await work()
        except MqinferError as error:
            deed.said, deed.bad = str(error), True
        except Exception as error:  # it ends nothing else
            log.exception("what was begun on a page failed", what=deed.what)
            deed.said = f"a fault of the console's, which is in its log: {type(error).__name__}"
            deed.bad = True
        finally:
            deed.ended = time.time()
            deed.over.set()
