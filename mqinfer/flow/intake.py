"""Intake: how a stage asks its consumer for messages: for as many as have a place, while it may.

Promise 3: nothing is asked for that has no free slot, and while a gate is closed (a server is away,
the stage behind is too far behind) nothing is asked for at all; what is in flight goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from mqinfer.flow.slots import Slots
    from mqinfer.ports import Delivery, Feed, Pull

log = structlog.get_logger("mqinfer.stage")

GATHER = 0.002  # how long few free slots wait to be asked for together, in seconds

Gate = Callable[[], str | None]


@dataclass(frozen=True, slots=True)
class Source:
    """Where the messages of a stage come from.

    Attributes:
        stream: its name.
        consumer: the durable's name.
        feed: that delivers them.
        recreate: makes the consumer again after an operator deleted it.
        gates: each gives a reason not to pull now, or None.
        told: whether the log says when it stops pulling; where a sink has two of them, which have
            the same gates, one does.
        heard: called for each message that comes; None: nobody wants to know.
    """

    stream: str
    consumer: str
    feed: Feed
    recreate: Callable[[], Awaitable[object]]
    gates: Sequence[Gate] = ()
    told: bool = True
    heard: Callable[[], None] | None = None


class Intake:
    """Asks one consumer for messages.

    Args:
        name: of the stage, for logs.
        source: where they come from.
        slots: the account of what is in flight.

    Attributes:
        blocked: the reason of the first closed gate, when it was last looked at.
    """

    def __init__(self, name: str, source: Source, slots: Slots):
        self.blocked: str | None = None
        self._name = name
        self._source = source
        self._slots = slots
        self._pull: Pull | None = None
        self._asking: asyncio.TimerHandle | asyncio.Handle | None = None
        self._closed = False

    async def open(self, on_message: Callable[[Delivery], None]) -> None:
        """Begin to pull; `on_message` is called for every message."""
        source = self._source
        heard = source.heard

        def hear(delivery: Delivery) -> None:
            assert heard is not None
            heard()
            on_message(delivery)

        self._pull = await source.feed.pull(
            source.stream,
            source.consumer,
            on_message=on_message if heard is None else hear,
            on_released=self._withdrawn,
            recreate=source.recreate,
        )
        self._ask()

    async def close(self) -> None:
        """Stop asking and taking."""
        self._closed = True
        if self._pull is not None:
            await self._pull.close()

    def look(self) -> None:
        """Look at the gates, and ask, unless that is about to be done."""
        if self._asking is None:
            self._ask()

    def ask_soon(self) -> None:
        """Ask in this iteration of the loop when much is free, else let more become free."""
        if self._asking is None and not self._closed:
            loop = asyncio.get_running_loop()
            if self._slots.half_free:
                self._asking = loop.call_soon(self._ask)
            else:
                self._asking = loop.call_later(GATHER, self._ask)

    def _ask(self) -> None:
        """Ask for as many messages as there are free slots, unless a gate is closed."""
        self._asking = None
        if self._closed or self._pull is None or self._pull.paused:
            return
        blocked = next((reason for gate in self._source.gates if (reason := gate())), None)
        if blocked != self.blocked:
            if self._source.told and (blocked is None) != (self.blocked is None):
                log.info(
                    "pulls again" if blocked is None else "stops pulling",
                    stage=self._name,
                    reason=blocked,
                )
            self.blocked = blocked
        if blocked is not None:
            return
        while wanted := self._slots.available():
            self._slots.ask(*wanted)
            self._pull.request(*wanted)

    def _withdrawn(self, messages: int, size: int) -> None:
        self._slots.withdraw(messages, size)
        self.ask_soon()

    def __repr__(self) -> str:
        return f"Intake({self._name}, {self._slots!r}, blocked={self.blocked!r})"
