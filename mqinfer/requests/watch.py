"""Watch: what the server pushes of one request, for one who waits; some of it may be lost."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import Final

import msgspec

from mqinfer.identity import header_number, last_header
from mqinfer.requests.state import State, decode

HEARTBEAT: Final = 5.0  # seconds between looks, while nothing is pushed
LOOKS: Final = 200  # a second, of all together that wait in this process
_HELD: Final = 256  # events that wait for a slow reader; what is beyond it reads from the stream


class Pace:
    """How often those who wait look for themselves: ten thousand more rarely than a few.

    What is pushed is lost with a connection, which all are told of (`Watch.again`), and hardly ever
    otherwise.

    Attributes:
        waiting: how many wait.
    """

    def __init__(self) -> None:
        self.waiting = 0

    @property
    def seconds(self) -> float:
        """Between the looks of one."""
        return max(HEARTBEAT, self.waiting / LOOKS)


class Watch:
    """What was pushed, and not taken yet.

    Args:
        pace: of all that wait.

    Attributes:
        missed: whether something was lost on the way, or had no room.
    """

    def __init__(self, pace: Pace):
        self.pace = pace
        self.missed = False
        self._state: State | None = None
        self._events: deque[tuple[int, bytes]] = deque()
        self._last = 0
        self._changed = asyncio.Event()

    def heard_state(self, _subject: str, data: bytes, _header: bytes) -> None:
        """A state, from the read loop."""
        try:
            self._state = decode(data)
        except msgspec.MsgspecError:
            self.missed = True  # whatever that is, it is looked at
        self._changed.set()

    def heard_event(self, _subject: str, data: bytes, header: bytes) -> None:
        """An event, from the read loop."""
        sequence = header_number(last_header(header, "Nats-Sequence"))
        before = header_number(last_header(header, "Nats-Last-Sequence"))
        if before > self._last or not sequence or len(self._events) >= _HELD:
            self.missed = True
        else:
            self._events.append((sequence, data))
        self._last = max(self._last, sequence)
        self._changed.set()

    def again(self) -> None:
        """The connection was lost, and is there again; not all who wait look at once."""
        loop = asyncio.get_running_loop()
        loop.call_later(random.uniform(0.0, self.pace.waiting / LOOKS), self._lost)

    def _lost(self) -> None:
        self.missed = True
        self._changed.set()

    async def changed(self, seconds: float) -> None:
        """Return when something was pushed, or after so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def state(self, seconds: float) -> State | None:
        """A state that was pushed; None where none was in so many seconds, or some was lost."""
        until = asyncio.get_running_loop().time() + seconds
        while self._state is None and not self.missed:
            left = until - asyncio.get_running_loop().time()
            if left <= 0:
                return None
            await self.changed(left)
        self.missed = False
        return self.take_state()

    @property
    def silent(self) -> bool:
        """Whether there is nothing to take."""
        return self._state is None and not self._events and not self.missed

    def take_state(self) -> State | None:
        """The newest state that was pushed since the last look."""
        state, self._state = self._state, None
        self._calm()
        return state

    def take_events(self, known: int) -> list[tuple[int, bytes]] | None:
        """Sequences and data of events behind `known`; None: read them from the stream."""
        events, self._events = list(self._events), deque()
        missed, self.missed = self.missed, False
        self._calm()
        if missed:
            return None
        return [one for one in events if one[0] > known]

    def _calm(self) -> None:
        """Wait for something new, once all is taken."""
        if self.silent:
            self._changed.clear()
