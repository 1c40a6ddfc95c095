"""Following: a job's states as they come, each newer than the one before.

The server pushes each state as it is stored, to all who listen, and so nothing is read for them;
what is pushed may be lost, so it is read at the beginning, and now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

import msgspec

from mqinfer.identity import header_number, last_header
from mqinfer.jobs.state import State, decode

Numbered = tuple[State, int]  # with its revision


class Pushed:
    """The newest state that was pushed, until it is taken."""

    def __init__(self) -> None:
        self._newest: Numbered | None = None
        self._changed = asyncio.Event()

    def heard(self, _subject: str, data: bytes, header: bytes) -> None:
        """A state, from the read loop."""
        revision = header_number(last_header(header, "Nats-Sequence"))
        try:
            state = decode(data)
        except msgspec.MsgspecError:
            self._newest = None  # whatever that is, it is looked at
        else:
            if self._newest is None or self._newest[1] < revision:
                self._newest = state, revision
        self._changed.set()

    async def take(self, seconds: float) -> Numbered | None:
        """What was pushed last; None where nothing was in so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return None
        self._changed.clear()
        newest, self._newest = self._newest, None
        return newest


async def follow(
    pushed: Pushed, look: Callable[[], Awaitable[Numbered]], seconds: float
) -> AsyncGenerator[State]:
    """The states of a job to its end.

    Args:
        pushed: what is heard of it, from before this begins.
        look: reads its state; what that raises is raised.
        seconds: after which it is read, where nothing is pushed.
    """
    state, last = await look()
    yield state
    while state.open:
        new, revision = await pushed.take(seconds) or await look()
        if revision > last:
            state, last = new, revision
            yield state
