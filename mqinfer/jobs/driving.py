"""Driving: what a worker does for open jobs: it admits chunks, publishes them, and ends the job.

A consumer of the bucket gives out each state as it is written, so that whoever is given one goes on
from what is kept: a job has no process of its own, and any may die between any two steps. Two who
drive one job do the same work twice at worst, under the same ids.

A chunk is published as a root of `completion` whose outputs are its items: a record says which, as
that of a stage would. What comes of them is told by the tracker (`telling`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import structlog

from mqinfer.completion import progress, record, roots
from mqinfer.completion.assemble import Tale
from mqinfer.completion.progress import LATE, NOTHING
from mqinfer.completion.record import First, Output, Record
from mqinfer.completion.waited import bulk_kinds, item
from mqinfer.errors import MqinferError
from mqinfer.flow.publishing import publish_stored
from mqinfer.identity import CONTENT_TYPE, DEADLINE, MSG_ID, ROOTS, given_id, header_block
from mqinfer.jobs import chunk, output, part, places, reading
from mqinfer.jobs import state as states
from mqinfer.jobs.jobs import bucket_of, change_job, say_stopped
from mqinfer.jobs.state import State
from mqinfer.jobs.telling import before_of
from mqinfer.joins.tracking import AGAIN, Inner

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.blob import BlobStore
    from mqinfer.bucket import Bucket
    from mqinfer.completion.tracker import Tracker
    from mqinfer.flow.job import Job
    from mqinfer.flow.lanes import Turn
    from mqinfer.flow.settler import Settler
    from mqinfer.jobs.chunk import Item
    from mqinfer.ports import Broker, Core
    from mqinfer.stage import Limits

log = structlog.get_logger("mqinfer.jobs")

_TIMEOUT = 30.0
_AT_ONCE = 32  # items that are being stored: no more than keeps turns of the loop short
_SOON = 0.1  # seconds after which a state comes again that is looked at just now
_LATER = 60.0  # seconds between looks at a job that only waits
_NEXT = 1.0  # seconds after which a job comes again whose rows wait for those of another


class Driving(Inner):
    """Drives the jobs of an app.

    Args:
        app: whose.
        tracker: that tells of what there is, once a job stops.
        roots: the bucket of what it knows.
        broker: to publish.
        core: to say that a job stops.
        store: of blobs.
        turn: says when more may be published.
        settler: of the runner.
        limits: of the task.
        inline_limit: bytes of a blob that ride in a message.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        app: App,
        tracker: Tracker,
        *,
        roots: Bucket,
        broker: Broker,
        core: Core | None,
        store: BlobStore | None,
        inline_limit: int,
        turn: Turn,
        settler: Settler,
        limits: Limits,
        now: Callable[[], float] = time.time,
    ):
        super().__init__(settler, limits)
        self._app = app
        self._tracker = tracker
        self._roots = roots
        self._broker = broker
        self._core = core
        self._store = store
        self._turn = turn
        self._now = now
        self._bucket = bucket_of(app, broker)
        self._busy: set[str] = set()
        self._inline_limit = inline_limit
        self._reads = False  # rows of a job; one at a time, so that the others go on

    async def run(self, jobs: Sequence[Job]) -> None:
        """Look at each job once, however many of its states came."""
        by_id: dict[str, list[Job]] = {}
        for job in jobs:
            state = _read(job)
            if state is None or not state.open:
                self._settler.answered(job, ())
            else:
                by_id.setdefault(state.id, []).append(job)
        async with asyncio.TaskGroup() as group:
            for identity, ours in by_id.items():
                group.create_task(self._one(identity, ours), name=identity)

    async def _one(self, identity: str, jobs: Sequence[Job]) -> None:
        left = _SOON
        if identity not in self._busy:
            self._busy.add(identity)
            try:
                left = await self._look(identity)
            except Exception as error:
                left = AGAIN
                unknown = None if isinstance(error, MqinferError) else error
                log.warning("a job waits", id=identity, reason=str(error), exc_info=unknown)
            finally:
                self._busy.discard(identity)
        for job in jobs:
            if left > 0:
                self._settler.hand_back(job, left)
            else:
                self._settler.answered(job, ())

    async def _look(self, identity: str) -> float:
        """Do what is due; the seconds until there is something again, 0 for never."""
        while True:
            found = await self._bucket.load(places.key_of(identity))
            state = states.decode(found[0]) if found is not None and found[0] else None
            if state is None or not state.open:
                return 0.0
            now = self._now()
            if states.complete(state):
                await self._end(state)
            elif state.deadline <= now and state.stopping is None:
                await self._expire(state)
            elif state.stopping is not None:
                due = state.stopped + states.GRACE
                if now < due:
                    return due - now
                await self._break_off(state)
            elif state.unread is not None:
                if self._reads:
                    return _NEXT
                await self._plan(state)
            elif not await self._admit(state):
                lost = [one.claimed + states.LOST for one in state.flight if not one.published]
                return max(0.05, min(*lost, state.deadline, now + _LATER) - now)

    async def _expire(self, state: State) -> None:
        stopped = await self._change(state, lambda one: states.stopped(one, "expired", self._now()))
        if stopped is not None and self._core is not None:
            say_stopped(self._app, self._core, stopped)

    async def _plan(self, state: State) -> None:
        """Read the rows of a job that was accepted unread."""

        async def wanted() -> bool:
            found = await self._bucket.load(places.key_of(state.id))
            one = states.decode(found[0]) if found is not None and found[0] else None
            if one is None or one.created != state.created:
                return False
            return one.open and one.stopping is None and self._now() < one.deadline

        self._reads = True
        try:
            change = await reading.read(
                self._app, state, self._needed(), self._broker, self._inline_limit, wanted
            )
        finally:
            self._reads = False
        if change is not None:
            await self._change(state, lambda one: change(one, self._now()))

    # --- chunks ---------------------------------------------------------------------------------

    async def _admit(self, state: State) -> bool:
        """Publish the chunks that are ours to publish; whether anything was done."""
        mine: tuple[int, ...] = ()
        changed = False

        def claim(one: State) -> State:
            nonlocal mine, changed
            after, mine = states.claimed(one, self._now())
            changed = after is not one
            return after

        claimed = await self._change(state, claim)
        if claimed is None or not changed:
            return False
        for number in mine:
            await self._publish(claimed, number)
            await self._change(
                claimed, partial(states.published, turn=claimed.round, number=number)
            )
        return True

    async def _publish(self, state: State, number: int) -> None:
        """Publish a chunk: its items, and then the record that says which they are."""
        store = self._needed()
        before = await before_of(store, state, number)
        items = chunk.decode(await store.get(places.chunk(state.folder, number)))
        items = part.due(items, before)
        root = places.root_of(state, number)
        endpoint = self._app.endpoints[state.endpoint]
        kind = item(self._app, endpoint)
        settled = await self._settled(root)
        bulk = endpoint.reads in bulk_kinds(self._app)
        outputs = []
        turns = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for place, one in enumerate(items):
                if one.body is None:
                    continue
                identity = places.item_id(state, one.row)
                output = Output(identity, 0, place)
                outputs.append(output)
                nodes = record.nodes_of(output, kind, "")
                if all(progress.node(*node) in settled for node in nodes):
                    continue  # it was published before, and is done
                await turns.acquire()
                await self._turn.room()
                storing = self._put(state, one, identity, root, bulk)
                publishing = group.create_task(storing, name=identity)
                publishing.add_done_callback(lambda _: turns.release())
        made = Record(
            id=places.chunk_id(state.id, number, state.round),
            stage=places.TASK,
            outcome="answered",
            kinds=(kind,),
            outputs=tuple(outputs),
            first=First((places.TASK,), -1, 0, {}),
        )
        data = record.together([record.encode(made)])
        headers = {MSG_ID: f"{made.id}/{root.token}", ROOTS: str(root)}
        where = roots.subject_of(self._app, root)
        await publish_stored(self._broker, where, header_block(headers), data, timeout=_TIMEOUT)

    async def _put(
        self, state: State, one: Item, identity: str, root: roots.Root, bulk: bool
    ) -> None:
        """Publish an item, and return when it is stored."""
        assert one.body is not None
        reads = self._app.endpoints[state.endpoint].reads
        headers = {
            CONTENT_TYPE: one.body.content_type,
            **given_id(self._app.subject(reads), identity),
            ROOTS: str(root),
            DEADLINE: repr(state.deadline),
        }
        if self._broker.full:
            await self._broker.room()
        where = self._app.subject(reads, bulk=bulk) + (f".{one.key}" if one.key else "")
        block = header_block(headers)
        await publish_stored(self._broker, where, block, one.body.payload, timeout=_TIMEOUT)

    async def _settled(self, root: roots.Root) -> frozenset[bytes]:
        """The nodes below a chunk of which it is known that they are settled."""
        found = await self._roots.load(root.token)
        known = progress.decode(found[0]) if found is not None and found[0] else NOTHING
        return progress.split(known.both) | progress.split(known.settled)

    # --- the end --------------------------------------------------------------------------------

    async def _break_off(self, state: State) -> None:
        """Have told what there is of the chunks that are under way."""
        for one in state.flight:
            root = places.root_of(state, one.number)
            chunk_id = places.chunk_id(state.id, one.number, state.round)
            unread = Tale(chunk_id, None, None, (), (), LATE, {}, "")
            await self._tracker.late(root, root.kind, unread)
        # Told now, or before by somebody who died: nothing more comes of these.
        await self._change(state, lambda one: states.put_back(one, state.round, state.flight))

    async def _end(self, state: State) -> None:
        """End a job of which nothing is left; what came of it is written into files first."""
        sizes = await self._write(state)
        now = self._now()
        if state.stopping is None:
            ended = states.encode(states.ended(state, now, sizes))
            await self._needed().put(places.success(state.folder), ended)
        before = state.stopping

        def end(one: State) -> State:
            same = states.complete(one) and one.stopping == before
            return states.ended(one, now, sizes) if same else one

        await self._change(state, end)

    async def _write(self, state: State) -> tuple[int, int] | None:
        """Write the files of a job that ends; None where one that was stopped cannot have any."""
        try:
            return await output.write(self._needed(), state)
        except MqinferError as error:
            if state.stopping is None:
                raise
            # Nobody waits for a store to stop a job; its parts say the same.
            log.warning("a job ends without files", id=state.id, reason=str(error))
            return None

    # --- inside ---------------------------------------------------------------------------------

    async def _change(self, state: State, function: Callable[[State], State]) -> State | None:
        def change(one: State) -> State:
            return function(one) if one.created == state.created else one

        return await change_job(self._bucket, state.id, change, self._now)

    def _needed(self) -> BlobStore:
        if self._store is None:
            raise MqinferError("no blob store is configured: set MQINFER_BLOBS")
        return self._store


def _read(job: Job) -> State | None:
    """The state in the bucket; None for what is none."""
    try:
        return states.decode(job.delivery.data)
    except msgspec.MsgspecError:
        return None
