"""Looks: what the processes of a supervisor have to do, seen by a thread beside it.

The supervisor waits for signals and children without an event loop; this thread has one, and asks
NATS once a second how far the consumers of each group are, and what its processes say of
themselves. While NATS does not answer there is no look, and a supervisor changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mqinfer.errors import MqinferError

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.ports import Core
    from mqinfer.settings import Settings
    from mqinfer.streams import Streams
    from mqinfer.supervise.group import Group
    from mqinfer.worker.presence import Present

EVERY = 1.0  # seconds between two looks


@dataclass(frozen=True, slots=True)
class Look:
    """What a group has to do.

    Attributes:
        at: when it was seen, in monotonic seconds.
        waiting: messages that were not delivered.
        in_flight: messages that were, and are not done.
        settled: deliveries that have ended since ever.
        busy: the part of a processor that each of its processes uses.
        held: why more processes would not help, or "".
    """

    at: float
    waiting: int
    in_flight: int
    settled: int
    busy: float
    held: str


class Looks:
    """Sees for a supervisor.

    Args:
        app: whose processes they are.
        settings: of the connection to NATS.
        groups: that are looked at.

    Attributes:
        ready: the ids of processes of this machine that say they can work.
    """

    def __init__(self, app: App, settings: Settings, groups: Sequence[Group]):
        self.ready: frozenset[int] = frozenset()
        self._app = app
        self._settings = settings
        self._groups = tuple(groups)
        self._looks: dict[str, Look] = {}

    def of(self, group: str) -> Look | None:
        """The last look at a group; None where there is none."""
        return self._looks.get(group)

    def watch(self, groups: Sequence[Group]) -> None:
        """From the next look on, see these groups."""
        self._groups = tuple(groups)

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """Inside, the thread runs."""
        ends = threading.Event()

        async def until_told() -> None:
            looking = asyncio.ensure_future(self._look_on())
            await asyncio.to_thread(ends.wait)
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await looking

        thread = threading.Thread(
            target=lambda: asyncio.run(until_told()), name="mqinfer-looks", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            ends.set()
            thread.join(5.0)

    async def _look_on(self) -> None:
        import structlog

        from mqinfer import wiring

        log, told = structlog.get_logger("mqinfer.supervisor"), ""
        while True:
            try:
                async with wiring.jetstream(self._app, self._settings, "supervisor") as broker:
                    scanner, core = wiring.scanner(broker), wiring.core(broker)
                    while True:
                        await self._look(scanner, core)
                        told = ""
                        await asyncio.sleep(EVERY)
            except MqinferError as error:
                if str(error) != told:
                    told = str(error)
                    log.warning("what there is to do is not seen: nothing scales", reason=told)
            self._looks, self.ready = {}, frozenset()
            await asyncio.sleep(EVERY)

    async def _look(self, streams: Streams, core: Core) -> None:
        from mqinfer.worker import presence

        present, now = await presence.seen(self._app, streams)
        host = socket.gethostname()
        here = [one for one in present if one.host == host and not one.lost(now)]
        ready = {one.pid for one in here if not one.reasons}
        if any(group.holds for group in self._groups):
            from mqinfer.search.roll import called

            roll = await called(self._app, core)
            ready |= {one.pid for one in roll.holdings if one.host == host and one.ready}
        self.ready = frozenset(ready)
        found: dict[str, Look] = {}
        for group in self._groups:
            if (look := await _look(streams, group, here)) is not None:
                found[group.name] = look
        self._looks = found


async def _look(streams: Streams, group: Group, here: list[Present]) -> Look | None:
    waiting = in_flight = settled = 0
    begun = False
    for stream, consumer in group.consumers:
        info = await streams.consumer_info(stream, consumer)
        if info is None:
            continue
        begun = True
        unacknowledged = info.get("num_ack_pending", 0)
        waiting += info.get("num_pending", 0)
        in_flight += unacknowledged
        settled += info.get("delivered", {}).get("consumer_seq", 0) - unacknowledged
    if not begun:
        return None
    ours = [one for one in here if not one.run and set(one.stages) <= set(group.stages)]
    # One that is starting says so; that holds up nobody while others work.
    held = ours[0].reasons[0] if ours and all(one.reasons for one in ours) else ""
    if not held and ours and all(one.queueing for one in ours):
        held = f"calls of model {ours[0].queueing} queue: its server is what holds them up"
    busy = sum(one.busy for one in ours) / len(ours) if ours else 0.0
    return Look(time.monotonic(), waiting, in_flight, settled, busy, held)
