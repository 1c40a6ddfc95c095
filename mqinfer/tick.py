"""Tick: what a clock sends to a stage."""

from __future__ import annotations

import datetime
from functools import cache
from typing import Any

import msgspec

from mqinfer.message import Message


class Tick(Message, frozen=True):
    """One of the times of a schedule.

        @app.every("1d", at="06:00", zone="Europe/Berlin")
        async def report(tick: Tick) -> Report: ...

    Attributes:
        at: when it is due, in UTC.
    """

    at: datetime.datetime

    @property
    def late(self) -> float:
        """Seconds that have passed since it was due."""
        return (datetime.datetime.now(datetime.UTC) - self.at).total_seconds()


@cache
def tick_of(stage: str) -> type[Tick]:
    """The ticks of one stage, which nothing else reads: a type with a subject of its own."""
    kind: Any = type("Tick", (Tick,), {"__module__": __name__}, frozen=True)
    # No type of a user's can have this subject.
    kind.__mqinfer__ = msgspec.structs.replace(kind.__mqinfer__, subject=f"=tick.{stage}")
    made: type[Tick] = kind
    return made


def tick_id(stage: str, at: datetime.datetime) -> str:
    """The identity of a tick: its stage and time; it ends in the day, by which rows are kept."""
    at = at.astimezone(datetime.UTC)
    return f"{stage}-{at:%Y%m%dT%H%M%SZ}@{at:%Y-%m-%d}"
