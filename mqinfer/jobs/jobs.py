"""Jobs: what may be done with the jobs of an app: submit, find, wait, read, cancel, try again.

All that is known of a job is one value in a bucket, and blobs that never change; so any process may
answer for it. To accept is one write (`accepting`). Workers drive it (`driving`).
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from mqinfer.bucket import change
from mqinfer.dropped import drop_folder
from mqinfer.errors import JobUnknown, MqinferError
from mqinfer.jobs import places, results
from mqinfer.jobs import state as states
from mqinfer.jobs.accepting import Accepting
from mqinfer.jobs.following import Numbered, Pushed, follow
from mqinfer.jobs.state import State
from mqinfer.requests.places import canceled
from mqinfer.requests.watch import HEARTBEAT

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.blob import BlobStore
    from mqinfer.bucket import Bucket
    from mqinfer.codec import Codec
    from mqinfer.jobs.checking import Encode
    from mqinfer.jobs.part import Line
    from mqinfer.ports import Broker, Core
    from mqinfer.streams import Streams


class Jobs(Accepting):
    """The jobs of an app.

    Args:
        app: whose.
        broker: for the bucket.
        core: to hear what is pushed.
        streams: to list them.
        store: of blobs.
        codec: to decode rows.
        encode: of messages.
        secret: that ids of jobs with a key are made with.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        app: App,
        *,
        broker: Broker,
        core: Core,
        streams: Streams,
        store: BlobStore,
        codec: Codec,
        encode: Encode,
        secret: str = "",
        now: Callable[[], float] = time.time,
    ):
        self.app = app
        self._broker = broker
        self._core = core
        self._streams = streams
        self._store = store
        self._codec = codec
        self._encode = encode
        self._secret = secret
        self._now = now
        self._bucket = bucket_of(app, broker)

    async def ensure(self) -> None:
        """Make the bucket of states, where it is not there.

        Raises:
            ConflictError: it exists with settings that do not fit.
            Unavailable: NATS does not answer.
        """
        await self._bucket.ensure()

    # --- looking --------------------------------------------------------------------------------

    async def find(self, identity: str, *, tenant: str = "") -> State | None:
        """A job; None where there is none of this id, or not of this tenant.

        One that should have ended long ago is ended by this.

        Raises:
            Unavailable: NATS does not answer.
        """
        found = await self._find(identity, tenant)
        return None if found is None else found[0]

    async def _find(self, identity: str, tenant: str) -> Numbered | None:
        """The same, with its revision."""
        if places.endpoint_of(identity) is None:
            return None
        while True:
            found = await self._bucket.load(places.key_of(identity))
            state = states.decode(found[0]) if found is not None and found[0] else None
            if found is None or state is None:
                return None
            if state.tenant != tenant or state.expires <= self._now():
                return None
            if not states.overdue(state, self._now()):
                return state, found[1]
            await self._change(identity, lambda one: states.given_up(one, self._now()))

    async def get(self, identity: str, *, tenant: str = "") -> State:
        """A job.

        Raises:
            JobUnknown: there is none of this id.
            Unavailable: NATS does not answer.
        """
        return (await self._get(identity, tenant))[0]

    async def _get(self, identity: str, tenant: str) -> Numbered:
        found = await self._find(identity, tenant)
        if found is None:
            raise JobUnknown(
                f"there is no job {identity!r}: it is forgotten, or there never was one"
            )
        return found

    async def follow(
        self, identity: str, *, tenant: str = "", known: State | None = None
    ) -> AsyncIterator[State]:
        """A job as it is now, and then each time that it has changed, to its end.

        An outage of NATS is waited out once something is known of the job, for as long as anybody
        would wait for it.

        Args:
            identity: of the job.
            tenant: who asks.
            known: how it was when it was last looked at; None: it never was.

        Raises:
            JobUnknown: there is none of this id.
            Unavailable: NATS does not answer.
        """
        if places.endpoint_of(identity) is None:
            await self.get(identity, tenant=tenant)
        patience = None if known is None else results.Patience(known, self._now)

        async def look() -> Numbered:
            nonlocal patience
            read = partial(self._get, identity, tenant)
            found = await (read() if patience is None else patience.ask(read))
            patience = results.Patience(found[0], self._now)
            return found

        pushed = Pushed()
        async with self._core.listen(places.pushed_state(self.app, identity), pushed.heard):
            async for state in follow(pushed, look, HEARTBEAT):
                yield state

    async def look(self, state: State) -> State:
        """A job that is known as it is now, through an outage of NATS; errors as of `get`."""
        get = partial(self.get, state.id, tenant=state.tenant)
        return await results.Patience(state, self._now).ask(get)

    async def lines(self, state: State) -> AsyncIterator[Line]:
        """What came of the rows so far, in their order; of those that are not done, nothing.

        Raises:
            BlobError: a part cannot be read.
            Unavailable: the store does not answer, for longer than anybody would wait.
        """
        async for _, lines in results.parts(results.patient(self._store, state), state):
            for line in lines:
                yield line

    def text(
        self, state: State, *, errors: bool = False, after: int = 0, start: int = 0
    ) -> AsyncIterator[bytes]:
        """The same as lines of JSON, some at a time; see `results.text`."""
        return results.text(self._store, state, errors=errors, after=after, start=start)

    async def listed(self, endpoint: str | None = None, *, tenant: str = "") -> list[State]:
        """The jobs that are kept, those that changed last at the end.

        Raises:
            Unavailable: NATS does not answer.
        """
        bucket = places.bucket(self.app)
        found = []
        async for stored in self._streams.messages(
            f"KV_{bucket}", f"$KV.{bucket}.{endpoint or '*'}.*"
        ):
            try:
                state = states.decode(stored.data)
            except msgspec.MsgspecError:
                continue  # a stranger's
            if state.expires > self._now() and state.tenant == tenant:
                found.append(state)
        return found

    # --- changing -------------------------------------------------------------------------------

    async def cancel(self, identity: str, *, tenant: str = "") -> State:
        """Cancel a job: nothing more is begun, and what is under way is stopped.

        It ends once that has ended; one that has ended stays as it is.

        Raises:
            JobUnknown: there is none of this id.
            Unavailable: NATS does not answer.
        """
        await self.get(identity, tenant=tenant)

        def cancel(before: State) -> State:
            after = states.stopped(before, "canceled", self._now())
            return states.ended(after, self._now()) if states.complete(after) else after

        state = await self._change(identity, cancel)
        if state.stopping == "canceled":
            say_stopped(self.app, self._core, state)
        return state

    async def retry(self, identity: str, *, tenant: str = "") -> State:
        """Open a job that has ended for what failed, and for what never ran.

        Raises:
            JobUnknown: there is none of this id.
            MqinferError: it has not ended, or there is nothing that can be tried again.
            Unavailable: NATS does not answer.
        """
        before = await self.get(identity, tenant=tenant)
        if before.open:
            raise MqinferError(f"job {identity} has not ended yet")
        if not states.can_retry(before):
            raise MqinferError(f"job {identity}: nothing in it can be tried again")
        return await self._change(
            identity,
            lambda one: states.retried(one, self._now()) if one.round == before.round else one,
        )

    async def forget(self, identity: str, *, tenant: str = "") -> None:
        """Cancel a job that is open, and forget it, with its rows and results.

        Raises:
            JobUnknown: there is none of this id.
            Unavailable: NATS does not answer.
        """
        state = await self.cancel(identity, tenant=tenant)

        def forget(value: bytes | None) -> bytes | None:
            # Not deleted: what takes its place is small, and dropped by the server itself.
            if value is None:
                return None
            return states.encode(states.forgotten(states.decode(value), self._now()))

        await change(
            self._bucket,
            places.key_of(identity),
            forget,
            what=f"job {identity}",
            ttl=lambda one: states.lives(states.decode(one), self._now()),
        )
        await drop_folder(self._store, places.home(state.id))

    async def _change(self, identity: str, function: Callable[[State], State]) -> State:
        state = await change_job(self._bucket, identity, function, self._now)
        if state is None:
            raise JobUnknown(f"there is no job {identity!r} any more")
        return state


def bucket_of(app: App, broker: Broker) -> Bucket:
    """The bucket of the states of an app's jobs."""
    return broker.bucket(
        places.bucket(app), replicas=app.replicas, ttls=True, pushed=places.pushed_states(app)
    )


async def change_job(
    bucket: Bucket, identity: str, function: Callable[[State], State], now: Callable[[], float]
) -> State | None:
    """Change a job; as it is then, or None where it is forgotten.

    Args:
        bucket: of the states.
        identity: of the job.
        function: gives the new state; called anew for every attempt.
        now: seconds since the epoch.

    Raises:
        MqinferError: that is not possible now.
    """

    def change_one(value: bytes | None) -> bytes | None:
        if value is None:
            return None
        before = states.decode(value)
        after = function(before)
        return value if after is before else states.encode(after)

    _, value = await change(
        bucket,
        places.key_of(identity),
        change_one,
        what=f"job {identity}",
        ttl=lambda one: states.lives(states.decode(one), now()),
    )
    return states.decode(value) if value else None


def say_stopped(app: App, core: Core, state: State) -> None:
    """Tell workers that nobody wants what is under way; who misses it works for nothing."""
    for one in state.flight:
        core.say(canceled(app, places.root_of(state, one.number)))
