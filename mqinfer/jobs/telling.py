"""Telling: what the tracker finds out of a chunk becomes its part, and is counted once.

The part is stored first, under the name of its round; whoever stores it again stores the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from mqinfer.errors import MqinferError
from mqinfer.jobs import chunk, part, places
from mqinfer.jobs import state as states
from mqinfer.jobs.jobs import bucket_of, change_job, say_stopped

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.blob import BlobStore
    from mqinfer.completion.assemble import Tale
    from mqinfer.completion.progress import Progress
    from mqinfer.completion.record import Record
    from mqinfer.completion.roots import Root
    from mqinfer.jobs.part import Line
    from mqinfer.jobs.state import State
    from mqinfer.ports import Broker, Core


class Telling:
    """Chunks as those who wait for roots; see `completion.tracker.Waiting`.

    Args:
        app: whose.
        broker: for the bucket.
        core: to say that a job stops.
        store: of blobs.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        app: App,
        *,
        broker: Broker,
        core: Core | None,
        store: BlobStore | None,
        now: Callable[[], float] = time.time,
    ):
        self._app = app
        self._core = core
        self._store = store
        self._now = now
        self._bucket = bucket_of(app, broker)
        self._subjects = {endpoint.chunk: endpoint.wanted for endpoint in app.endpoints.values()}

    def names(self, kind: str) -> Sequence[str]:
        """Who waits for the chunks of an endpoint's jobs: they do, under this name."""
        return (kind,) if kind in self._subjects else ()

    def wanted(self, name: str) -> Collection[str]:
        """The subjects of the answers."""
        return self._subjects[name]

    def heeds_first(self, _name: str) -> bool:
        """A part is stored before it is counted: who tells of a chunk again must tell the same."""
        return False

    def advance(self, name: str, root: Root, records: Sequence[Record], known: Progress) -> None:
        """A chunk is told of as a whole."""

    async def tell(self, name: str, root: Root, told: Tale) -> None:
        """Store the part of a chunk, and count it, unless that was done.

        Raises:
            MqinferError: that is not possible now.
        """
        del name
        found = places.parse_chunk(told.id)
        if found is None:
            return  # a stranger's
        identity, number, turn = found
        value = await self._bucket.load(places.key_of(identity))
        state = states.decode(value[0]) if value is not None and value[0] else None
        if state is None or not states.waits(state, turn, number):
            return
        if places.root_of(state, number) != root:
            return  # of a job of the same key that was forgotten
        if self._store is None:
            raise MqinferError("no blob store is configured: set MQINFER_BLOBS")
        before = await before_of(self._store, state, number)
        stored = await self._read(state, number)

        def made() -> tuple[list[Line], bytes]:
            items = part.due(chunk.decode(stored), before)
            found = part.merged(before or (), part.lines_of(items, told, state))
            return found, part.encode(found)

        lines, data = await asyncio.to_thread(made)  # of a thousand rows; the loop goes on
        await self._store.put(places.part(state.folder, number, turn), data)
        change = part.counts_of(lines).plus(part.counts_of(before or ()), -1)
        again = any(line.again for line in lines)
        stopping = state.stopping

        def done(one: State) -> State:
            if one.created != state.created:
                return one
            return states.done(one, turn, number, change, again=again, now=self._now())

        after = await change_job(self._bucket, identity, done, self._now)
        if after is not None and after.stopping != stopping and self._core is not None:
            say_stopped(self._app, self._core, after)

    async def _read(self, state: State, number: int) -> bytes:
        assert self._store is not None
        return await self._store.get(places.chunk(state.folder, number))


async def before_of(store: BlobStore, state: State, number: int) -> list[Line] | None:
    """What came of a chunk in rounds before; None where it never ran.

    Raises:
        BlobError: it cannot be read.
        Unavailable: the store does not answer.
    """
    turn = states.part_of(state, number)
    if turn is None:
        return None
    return part.decode(await store.get(places.part(state.folder, number, turn)))
