"""Keeping: one process that holds shards, of all generations there are, until it is stopped."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

import structlog

from mqinfer import plan
from mqinfer.errors import ConnectionClosed, MqinferError, Unavailable
from mqinfer.search import places, protocol
from mqinfer.search.counting import Counting
from mqinfer.search.replica import Replica

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.search.tools import Tools

log = structlog.get_logger("mqinfer.search")

_LOOK = 1.0  # seconds between looks at which generations there are
# Seconds for which one is held after it was dropped: those who search look every two seconds.
LINGER = 5.0
_AGAIN = 5.0  # seconds until shards that could not be held are tried again

_Place = tuple[str, str, int]  # index, model, generation


class Keeping:
    """Holds shards.

    Args:
        app: whose indexes.
        tools: connections.
        part: which part of the shards this process holds, from 0, and of how many parts: a shard
            belongs to the part of its number modulo parts. Processes of the same part are replicas.
        names: of the indexes; None is all.
        linger: seconds for which a generation is held after it was dropped.

    Attributes:
        tools: the same.
    """

    def __init__(
        self,
        app: App,
        tools: Tools,
        *,
        part: tuple[int, int] = (0, 1),
        names: list[str] | None = None,
        linger: float = LINGER,
    ):
        self._app = app
        self.tools = tools
        self._part = part
        self._linger = linger
        self._indexes = [one for one in app.indexes.values() if names is None or one.name in names]
        self._held: dict[_Place, tuple[Replica, asyncio.Event]] = {}
        self._known = False
        self._counting = Counting(app.name)
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Begin an orderly stop: what was asked is answered, snapshots are written."""
        self._stop.set()

    def not_ready(self) -> list[str]:
        """Why not all that there is can be searched here; empty when it can."""
        if not self._known:
            return ["which generations there are is not known yet"]
        return [
            f"generation {number} of {index} {model} is being loaded"
            for (index, model, number), (replica, _) in dict(self._held).items()
            if not replica.ready
        ]

    def metrics(self) -> bytes:
        """What is held and asked here, in Prometheus's text format; in any thread."""
        return self._counting.render(self.holding().shards)

    async def run(self) -> None:
        """Hold shards until `stop` is called.

        Raises:
            Unavailable: NATS does not answer, at the start, or closed the connection for good.
        """
        core, where = self.tools.core, places.roll(self._app)
        await self.tools.broker.ensure_stream(plan.stream_spec(self._app))
        await self.tools.generations.ensure()
        async with core.answering(where, self._roll), asyncio.TaskGroup() as group:
            while not self._stop.is_set():
                try:
                    await self._look(group)
                except ConnectionClosed:
                    raise
                except Unavailable as error:
                    log.warning("generations cannot be looked up", reason=str(error))
                try:
                    async with asyncio.timeout(_LOOK):
                        await self._stop.wait()
                except TimeoutError:
                    pass
            for _, stop in self._held.values():
                stop.set()

    async def _look(self, group: asyncio.TaskGroup) -> None:
        names = await self.tools.generations.names()
        there: set[_Place] = set()
        number, parts = self._part
        for index in self._indexes:
            for model in index.models:
                held = await self.tools.generations.held(index, model, names)
                if held.current in held.all:
                    self._counting.searched[index.name, model] = held.all[held.current]
                for one in held.all.values():
                    there.add(place := (index.name, model, one.number))
                    if place in self._held:
                        continue
                    shards = [shard for shard in range(one.shards) if shard % parts == number]
                    searches = self._counting.searches[index.name, model]
                    replica = Replica(self._app, index, model, one, shards, self.tools, searches)
                    self._held[place] = replica, asyncio.Event()
                    group.create_task(self._hold(place), name=f"replica {place}")
        self._known = True
        for place in self._held.keys() - there:
            asyncio.get_running_loop().call_later(self._linger, self._held[place][1].set)

    async def _hold(self, place: _Place) -> None:
        replica, stop = self._held[place]
        try:
            await replica.run(stop)
        except* MqinferError as errors:
            reason = str(_innermost(errors))
            log.error("shards cannot be held", place=place, reason=reason)  # noqa: TRY400
            await asyncio.sleep(0 if self._stop.is_set() else _AGAIN)
        del self._held[place]  # where the generation is still there, it is held anew

    def holding(self) -> protocol.Holding:
        """What is held here."""
        held = dict(self._held)  # `metrics` looks from another thread
        shards = [state for replica, _ in held.values() for state in replica.states()]
        ready = not self.not_ready()
        return protocol.Holding(socket.gethostname(), os.getpid(), shards, ready)

    def _roll(self, reply: str, data: bytes) -> None:
        del data
        self.tools.core.say(reply, protocol.encode(self.holding()))


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
