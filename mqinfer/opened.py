"""Opened: what is open in this process, for tasks that were not started inside of it.

A web application connects in its lifespan and is asked in tasks, and perhaps threads, of its own:
no context variable leads from the one to the other. So what a client opens is listed here as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True, eq=False)
class Open(Generic[_T]):
    """Something that is open, and where it lives.

    Attributes:
        owner: the app that it was opened for.
        service: itself.
        loop: the event loop that it belongs to.
    """

    owner: object
    service: _T
    loop: asyncio.AbstractEventLoop

    async def run(self, call: Callable[[_T], Coroutine[Any, Any, _R]]) -> _R:
        """Call it on its own loop, whichever loop and thread asks; cancelling cancels the call."""
        if self.loop is asyncio.get_running_loop():
            return await call(self.service)
        called = asyncio.run_coroutine_threadsafe(call(self.service), self.loop)
        return await asyncio.wrap_future(called)


class Opened(Generic[_T]):
    """All of one kind that is open in this process."""

    def __init__(self) -> None:
        self._open: list[Open[_T]] = []

    @contextmanager
    def offered(self, owner: object, service: _T) -> Iterator[Open[_T]]:
        """List `service` while inside.

        Args:
            owner: the app that it was opened for.
            service: of the running loop.
        """
        opened = Open(owner, service, asyncio.get_running_loop())
        self._open.append(opened)
        try:
            yield opened
        finally:
            self._open.remove(opened)

    def of(self, owner: object | None) -> list[Open[_T]]:
        """Those of one owner if there are any, else all; without those whose loop has ended."""
        here = asyncio.get_running_loop()
        found = [one for one in tuple(self._open) if one.loop is here or one.loop.is_running()]
        return [one for one in found if one.owner is owner] or found
