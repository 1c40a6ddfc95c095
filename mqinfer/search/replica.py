"""Replica: the shards of one generation that this process holds, from their start to their end.

Start: the newest snapshot, else ClickHouse; then the stream from there on. It answers once it has
read all that there was. Whatever it dies of, the next one begins at the last snapshot, and comes to
the same, as the newest vector of a key counts wherever it was read.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import numpy as np
import structlog

from mqinfer.birth import new_id
from mqinfer.blob import Dropping, put_pieces
from mqinfer.codec import Codec
from mqinfer.errors import BlobError, DecodeError, MqinferError, SearchError, Unavailable
from mqinfer.search import layout, places
from mqinfer.search.answering import Answering
from mqinfer.search.feed import Feed
from mqinfer.search.generations import Generation, Saved
from mqinfer.search.incoming import Incoming, Vector
from mqinfer.search.protocol import ShardState
from mqinfer.search.recorded import Recorded
from mqinfer.search.shard import Shard
from mqinfer.starting import AGAIN, unless

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.index import Index
    from mqinfer.ports import Database, Delivery
    from mqinfer.search.counting import Searches
    from mqinfer.search.tools import Tools

log = structlog.get_logger("mqinfer.search")

_RENEW = 0.5  # seconds between looks at what is to be laid anew


class Replica:
    """Shards of one generation.

    Args:
        app: the app.
        index: of which.
        model: whose vectors.
        generation: that is held.
        shards: the numbers of those that are held here.
        tools: connections.
        searches: counts what is asked.
    """

    def __init__(
        self,
        app: App,
        index: Index,
        model: str,
        generation: Generation,
        shards: Sequence[int],
        tools: Tools,
        searches: Searches,
    ):
        self._app, self._index, self._model = app, index, model
        self._generation = generation
        self._tools = tools
        self._searches = searches
        parameters = generation.parameters
        self._shards = {number: Shard(parameters, index.filters) for number in shards}
        self._saved: dict[int, Saved | None] = {}
        self._unsaved = dict.fromkeys(shards, 0)  # changes at the last snapshot
        kind = index.models[model]
        self._incoming = Incoming(index, kind, generation, Codec(tools.store))
        self._feed: Feed | None = None
        self._created = ""
        self.ready = False
        self._name = {"index": index.name, "model": model, "generation": generation.number}

    async def run(self, stop: asyncio.Event) -> None:
        """Hold them until told to stop; then write what is new, and end.

        Raises:
            MqinferError: they cannot be held; says why.
        """
        async with unless(stop):
            await self._load()
        if stop.is_set():
            return
        tools, number = self._tools, self._generation.number
        name = places.consumer(self._index.name, self._model, number, new_id()[-12:])
        floors = [0 if saved is None else saved.sequence for saved in self._saved.values()]
        subjects = places.subjects(
            self._app, self._index.models[self._model], self._generation.run or None
        )
        self._feed = feed = Feed(
            tools.broker, name, self._app.name, subjects, min(floors, default=0), self._take
        )
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(feed.run(), name=f"feed of {name}")]
            await _first(feed.caught_up, stop)
            await self._renew()
            beside.append(group.create_task(self._renewing(), name=f"renewal of {name}"))
            beside.append(group.create_task(self._saving(), name=f"snapshots of {name}"))
            if not stop.is_set():
                await self._answer(group, stop)
            await self._save(0.0)
            for task in beside:
                task.cancel()

    async def _answer(self, group: asyncio.TaskGroup, stop: asyncio.Event) -> None:
        core, number = self._tools.core, self._generation.number
        answering = []
        async with AsyncExitStack() as stack:
            for shard, held in self._shards.items():
                limit = self._tools.broker.max_payload
                one = Answering(held, number, core.say, limit, self._searches)
                task = group.create_task(one.run(), name=f"shard {shard}")
                answering.append((one, task))
                where = places.asked(self._app, self._index.name, self._model, number, shard)
                await stack.enter_async_context(core.answering(where, one.asked, queue="replicas"))
            self.ready = True
            log.info("shards answer", **self._name, shards=list(self._shards), vectors=len(self))
            try:
                await stop.wait()
            finally:
                self.ready = False
        for one, task in answering:  # nobody asks any more; what was asked is answered
            await one.finished()
            task.cancel()

    def __len__(self) -> int:
        return sum(len(shard) for shard in self._shards.values())

    # --- what comes -----------------------------------------------------------------------------

    def _take(self, delivery: Delivery) -> None:
        for vector in self._incoming.read(delivery):
            self._put(vector, self._shards)

    def _put(self, vector: Vector, shards: dict[int, Shard]) -> None:
        shard = shards.get(places.shard_of(vector.key, self._generation.shards))
        if shard is None:
            return
        if vector.vector is not None and np.size(vector.vector):
            try:
                shard.add(vector.key, vector.version, vector.vector, vector.values)
            except SearchError as error:
                log.warning("a vector is not indexed", key=vector.key, reason=str(error))
        else:
            shard.remove(vector.key, vector.version)

    # --- start ----------------------------------------------------------------------------------

    async def _load(self) -> None:
        created = await self._tools.broker.stream_created(self._app.name)
        self._created = created or ""
        for number in self._shards:
            self._saved[number] = await self._restored(number)
        lacking = {n: self._shards[n] for n, saved in self._saved.items() if saved is None}
        kind = self._index.models[self._model]
        recorded = Recorded(self._index, kind, self._generation, self._created)
        failures = 0
        while lacking and self._tools.database is not None:
            try:
                await self._from_table(recorded, self._tools.database, lacking)
                lacking = {}
            except Unavailable as error:
                failures += 1
                if failures == 1:
                    log.warning("waiting for ClickHouse", **self._name, reason=str(error))
                await asyncio.sleep(AGAIN.delay(failures, random.random()))

    async def _from_table(
        self, recorded: Recorded, database: Database, shards: dict[int, Shard]
    ) -> None:
        async for page in recorded.vectors(database):
            for vector in page:
                self._put(vector, shards)
            await asyncio.sleep(0)

    async def _restored(self, number: int) -> Saved | None:
        """The snapshot that a shard begins with; None: there is none that can be read."""
        generations, key = self._tools.generations, self._generation.number
        while True:
            saved = await generations.saved(self._index.name, self._model, key, number)
            if saved is None:
                return None
            try:
                data = await self._tools.store.get(saved.path)
                shard = self._shards[number]
                head, rows, gone, refused = await asyncio.to_thread(
                    layout.read, data, shard.parameters, shard.names
                )
            except (BlobError, DecodeError) as error:
                now = await generations.saved(self._index.name, self._model, key, number)
                if now is not None and now.path != saved.path:
                    continue  # another replica has written a newer one, and dropped this
                log.warning("a snapshot is passed over", **self._name, reason=str(error))
                return None
            shard.restore(rows, gone, refused)
            if head.created != self._created:
                # The stream was made anew: all that it has is newer.
                shard.begin_anew()
                saved.sequence = 0
            self._unsaved[number] = shard.changes
            return saved

    # --- beside ---------------------------------------------------------------------------------

    async def _renewing(self) -> None:
        while True:
            await asyncio.sleep(_RENEW)
            await self._renew()

    async def _renew(self) -> None:
        for shard in self._shards.values():
            if (renewal := shard.renewal()) is not None:
                began = time.monotonic()
                made = await asyncio.to_thread(renewal.made)
                shard.renew(renewal, made)
                took = round(time.monotonic() - began, 1)
                log.info("a shard was laid anew", **self._name, vectors=len(shard), seconds=took)

    async def _saving(self) -> None:
        every = self._tools.snapshot_every
        while True:
            await asyncio.sleep(every * random.uniform(0.9, 1.1))
            await self._save(every / 2)

    async def _save(self, rest: float) -> None:
        """Write what changed, unless another replica did so in the last `rest` seconds."""
        for number, shard in self._shards.items():
            if shard.changes != self._unsaved[number]:
                try:
                    await self._save_shard(number, shard, rest)
                except MqinferError as error:
                    log.warning("no snapshot was written", **self._name, reason=str(error))

    async def _save_shard(self, number: int, shard: Shard, rest: float) -> None:
        tools, generation = self._tools, self._generation.number
        known = await tools.generations.saved(self._index.name, self._model, generation, number)
        if known is not None and time.time() - known.time < rest:
            return
        assert self._feed is not None
        sequence, changes = self._feed.floor, shard.changes
        shard.forget(2 * sequence + 1)
        snapshot = layout.Snapshot(shard.rows, shard.gone, shard.refused, sequence, self._created)
        pieces = await asyncio.to_thread(snapshot.pieces)

        async def given() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        key = places.snapshot(self._index.name, self._model, generation, number)
        path = places.blob(self._app, key, sequence, new_id()[-12:])
        await put_pieces(tools.store, path, given())
        new = Saved(path, sequence, self._created, len(shard), time=time.time())
        old = await tools.generations.save(self._index.name, self._model, generation, number, new)
        if old.path and isinstance(tools.store, Dropping):
            await tools.store.drop(old.path)
        self._unsaved[number], self._saved[number] = changes, new

    # --- for people -----------------------------------------------------------------------------

    def states(self) -> list[ShardState]:
        """What is held."""
        lag = -1 if self._feed is None else self._feed.lag
        found = []
        for number, shard in self._shards.items():
            rows, saved = shard.rows, self._saved.get(number)
            found.append(
                ShardState(
                    self._index.name,
                    self._model,
                    self._generation.number,
                    number,
                    self.ready,
                    lag,
                    len(shard),
                    0 if rows is None else rows.frozen,
                    0 if rows is None else rows.nbytes,
                    [(key, why) for key, (_, why) in list(shard.refused.items())[-20:]],
                    0 if saved is None else saved.sequence,
                )
            )
        return found


async def _first(*events: asyncio.Event) -> None:
    """Return when one of them is set."""
    tasks = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
