"""Drones that keep flying: the days after a season, and how long their photographs wait."""

from __future__ import annotations

import asyncio
import datetime
import itertools
import math
import statistics
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from dataclasses import dataclass

from examples.plants import fleet
from examples.plants.season import Season
from mqinfer import Client

Where = tuple[str, datetime.date]  # which position, which day


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds from a photograph's publishing to the last of its grades."""

    seconds: list[float]

    @property
    def median(self) -> float:
        """Half of the photographs waited no longer."""
        return statistics.median(self.seconds) if self.seconds else math.nan

    @property
    def most(self) -> float:
        """No photograph waited longer."""
        return max(self.seconds, default=math.nan)

    def figures(self) -> dict[str, float]:
        """What a report keeps."""
        return {"photographs": len(self.seconds), "median": self.median, "most": self.most}

    def __str__(self) -> str:
        """In words."""
        return (
            f"{len(self.seconds)}, from publish to the last grade {self.median:.2f} s (median), "
            f"{self.most:.2f} s (most)"
        )


class Drones:
    """The days after a season: photographs at a steady pace.

    Args:
        client: publishes them.
        season: that is over.
        pace: photographs a second.
        ahead: the first of them, made before, as making one takes a processor a while.

    Attributes:
        sent: when each photograph left, in nanoseconds since the epoch, in their order.
    """

    def __init__(self, client: Client, season: Season, pace: float, ahead: list[fleet.Flight]):
        self._client, self._pause = client, 1 / pace
        later = itertools.islice(next_days(season), len(ahead), None)
        self._flights = fleet.in_thread(itertools.chain(ahead, later))
        self.sent: dict[Where, int] = {}

    async def send(self, *, steadily: bool = True) -> Where:
        """Publish the next photograph, then wait a moment; which one it was."""
        began = time.monotonic()
        one = await anext(self._flights)
        where = (one.photo.position_id, one.photo.date)
        self.sent[where] = time.time_ns()
        await fleet.send(self._client, one)
        if steadily:
            await asyncio.sleep(max(0.0, began + self._pause - time.monotonic()))
        return where

    def waits(self, among: Iterable[Where], graded: Mapping[Where, int]) -> Waits:
        """How long some photographs waited; one without leaves has no grades.

        Args:
            among: which.
            graded: when the last grade of each was there, in nanoseconds since the epoch.
        """
        return Waits([(graded[one] - self.sent[one]) / 1e9 for one in among if one in graded])

    async def aclose(self) -> None:
        """No more photographs."""
        await self._flights.aclose()


def next_days(season: Season) -> Iterator[fleet.Flight]:
    """Photographs of the same positions on the days after a season, without an end."""
    for day in itertools.count(season.days):
        for position in range(season.positions):
            yield fleet.flight(season.shot(position, day))


async def made(flights: Iterator[fleet.Flight], count: int) -> list[fleet.Flight]:
    """The first flights, made one after the other in a thread."""
    some: AsyncGenerator[fleet.Flight, None] = fleet.in_thread(itertools.islice(flights, count))
    return [one async for one in some]
