"""Lane: which suspects of a process may be at work together. No I/O.

A death is that of all stages of a process, so they share one lane. Each suspect says how many may
be at work when it is: as many as there are at first, half of those beside which it died at each
further death. Those that allow most go first: so most work is done, and when deaths come from
outside, nobody is alone at one while another may be in its place. For that the first wait a moment
for what comes with them.
"""

from __future__ import annotations

import asyncio
import uuid
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mqinfer.flow.job import Job

# More than ever are at work in one process; a power of two, as every width is.
WIDE = 1 << 16
GATHER = 0.5  # seconds between the first that arrives and the first that is let in


@dataclass(slots=True)
class Room:
    """What one stage takes of the lane.

    Attributes:
        handlers: messages that its handlers take at once.
        taken: of its suspects in the lane.
    """

    handlers: int
    taken: int = 0


@dataclass(slots=True, eq=False)
class Suspect:
    """A message that may kill its worker.

    Attributes:
        job: the message.
        width: the most suspects, itself included, that may be at work when it is.
        alone: deaths of its workers at which it alone was at work.
        room: its stage's.
        let_in: called when its turn has come.
    """

    job: Job
    width: int
    alone: int
    room: Room
    let_in: Callable[[Suspect], None]


class Lane:
    """The suspects of one process.

    Args:
        gather: seconds that the first waits for others; 0.0 is not at all.

    Attributes:
        group: names those that are at work until the lane is empty again.
        most: as many of them as were at work at once, rounded up to a power of two.
        told: as much of that as the bucket knows; whoever tells it holds `telling`.
    """

    def __init__(self, gather: float = GATHER) -> None:
        self.group = ""
        self.most = self.told = 0
        self.telling = asyncio.Lock()
        self._waiting: list[Suspect] = []  # the widest first, and in the order of their arrival
        self._inside: set[Suspect] = set()
        self._gather = gather
        self._gathering: asyncio.TimerHandle | None = None

    def enter(self, suspect: Suspect) -> None:
        """Let it in, soon or when there is room."""
        insort(self._waiting, suspect, key=lambda one: -one.width)
        if self._inside or not self._gather:
            self._let_in()
        elif self._gathering is None:
            loop = asyncio.get_running_loop()
            self._gathering = loop.call_later(self._gather, self.gathered)

    def gathered(self) -> None:
        """The first have waited long enough for others."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        self._let_in()

    def leave(self, suspect: Suspect) -> None:
        """It has ended, or is another worker's to handle."""
        if suspect in self._inside:
            self._inside.remove(suspect)
            suspect.room.taken -= 1
        else:
            self._waiting.remove(suspect)
        if self._gathering is None:
            self._let_in()

    def _let_in(self) -> None:
        inside = self._inside
        width = min((one.width for one in inside), default=WIDE)
        for suspect in tuple(self._waiting):
            width = min(width, suspect.width)
            if len(inside) >= width:
                return  # nor is there room for any that allows fewer
            if suspect.room.taken >= suspect.room.handlers:
                continue
            if not inside:
                self.group, self.most, self.told = uuid.uuid4().hex, 0, 0
            self._waiting.remove(suspect)
            inside.add(suspect)
            suspect.room.taken += 1
            self.most = max(self.most, 1 << (len(inside) - 1).bit_length())
            suspect.let_in(suspect)

    def __repr__(self) -> str:
        return f"Lane({len(self._inside)} at work, {len(self._waiting)} wait)"
