"""Timers: those that wait, told and cancelled; see `mqinfer.timers.places`."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mqinfer import plan
from mqinfer.errors import ConfigurationError
from mqinfer.identity import IDENTITY, header_text
from mqinfer.timers import places
from mqinfer.timers.asked import cancel

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.streams import Streams
    from mqinfer.timers.table import Table


@dataclass(frozen=True, slots=True)
class Waiting:
    """A timer that has not come.

    Attributes:
        timer: what it is cancelled by.
        due: when it comes.
        stage: that set it, or that the clock feeds; "" is a client.
        name: that it was given, or the schedule; None has none.
        key: of the name.
        subject: that it comes on.
        id: of the message.
    """

    timer: str
    due: datetime.datetime
    stage: str
    name: str | None
    key: str | None
    subject: str
    id: str


async def waiting(app: App, streams: Streams, stage: str | None = None) -> list[Waiting]:
    """The timers that wait, the next first.

    Args:
        app: whose.
        streams: of its server.
        stage: only those that it set.

    Raises:
        Unavailable: the server does not answer.
    """
    stream = places.stream_of(app.name)
    clocks = plan.clocked(app)
    found: dict[str, Waiting] = {}
    subject = f"{stream}.{stage or '*'}.*.at.>"
    async for stored in streams.messages(stream, subject):
        headers = stored.headers
        setter, slot = stored.subject.removeprefix(f"{stream}.").split(".")[:2]
        target = headers.get("Nats-Schedule-Target", "").partition(".fired.")[2]
        name, key = headers.get(places.NAME), headers.get(places.KEY)
        if setter in clocks and name is None and target.startswith("=tick."):
            name = clocks[setter].text
        timer = f"{setter}/{slot}"
        # One that is being replaced comes before the one that replaces it.
        found[timer] = Waiting(
            timer=timer,
            due=datetime.datetime.fromisoformat(headers[places.DUE]),
            stage="" if setter == places.CLIENT else setter,
            name=None if name is None else header_text(name),
            key=None if key is None else header_text(key),
            subject=f"{app.name}.{target}",
            id=header_text(headers.get(IDENTITY, "")),
        )
    return sorted(found.values(), key=lambda one: one.due)


async def cancel_timer(app: App, table: Table, timer: str) -> None:
    """Cancel one by what `waiting` calls it.

    Raises:
        ConfigurationError: none of this name waits.
        Unavailable: the server does not answer.
    """
    stage, _, slot = timer.partition("/")
    if not (stage and slot) or not await cancel(table, places.place(app.name, stage, slot)):
        raise ConfigurationError(
            f"app {app.name} has no timer {timer} that waits; `mqinfer timers` lists them"
        )
