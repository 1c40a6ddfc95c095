"""Requests: what may be done with the requests of an app: accept, find, wait, follow, cancel.

All that is known of a request is one value in a bucket, so that any process may answer for it. To
accept is one write, which holds what was asked; only then its message is published. Who dies in
between leaves that to a worker (`tracking`).
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Mapping,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from mqinfer.backoff import Backoff
from mqinfer.completion import roots
from mqinfer.completion.progress import decode as decode_progress
from mqinfer.dropped import drop_all
from mqinfer.errors import (
    ConfigurationError,
    PublishError,
    PublishTimeout,
    RequestConflict,
    RequestUnknown,
    Unavailable,
)
from mqinfer.requests import fresh, kept, places
from mqinfer.requests import state as states
from mqinfer.requests.following import AGAIN, Followed, follow, outlasted
from mqinfer.requests.kept import bucket_of, end_request, ensure, root_of
from mqinfer.requests.root import publish as publish_root
from mqinfer.requests.state import Asked, Body, End, Problem, State
from mqinfer.requests.watch import Pace, Watch

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.blob import BlobStore
    from mqinfer.completion.roots import Root
    from mqinfer.endpoint import Endpoint
    from mqinfer.ports import Broker, Core
    from mqinfer.streams import Streams

log = structlog.get_logger("mqinfer.requests")

PUBLISH_TIMEOUT = 5.0  # seconds; then it is left to a worker, which publishes again what is lost
GRACE = 2.0  # seconds after its deadline for which a worker may end a request with what there is
_TRIES = 5
# Between tries to accept. A cluster refuses a second copy of a write while the first is on its way,
# and shows neither until that is stored.
_PAUSE = Backoff(initial=0.05, maximum=0.5)

# Waits for the end of a request, given as it is now, by calling the second; or for less.
Race = Callable[[State, Callable[[], Coroutine[Any, Any, State]]], Awaitable[State]]


@dataclass(frozen=True, slots=True)
class Accepted:
    """What was accepted.

    Attributes:
        state: of the request.
        replayed: whether it was there: its key was used before, for the same.
    """

    state: State
    replayed: bool = False


class Requests:
    """The requests of an app.

    Args:
        app: whose.
        broker: to publish, and for the bucket.
        core: to hear what is pushed.
        streams: to read events.
        store: of blobs, where large answers are.
        secret: that ids of requests with a key are made with.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        app: App,
        *,
        broker: Broker,
        core: Core,
        streams: Streams,
        store: BlobStore | None = None,
        secret: str = "",
        now: Callable[[], float] = time.time,
    ):
        self.app = app
        self._broker = broker
        self._core = core
        self._streams = streams
        self._store = store
        self._secret = secret
        self._now = now
        self._bucket = bucket_of(app, broker)
        self._roots = broker.bucket(roots.bucket(app))
        self._pace = Pace()

    async def ensure(self) -> None:
        """Make the bucket of states and the stream of events, where they are not there.

        Raises:
            ConflictError: one exists with settings that do not fit.
            Unavailable: NATS does not answer.
        """
        await ensure(self.app, self._broker)

    # --- accepting ------------------------------------------------------------------------------

    async def accept(
        self,
        endpoint: str,
        subject: str,
        payload: bytes,
        content_type: str,
        *,
        key: str | None = None,
        tenant: str = "",
        headers: Mapping[str, str] | None = None,
        wait: float = 0.0,
        race: Race | None = None,
        webhook: str = "",
    ) -> Accepted:
        """Accept a request. When this returns nothing that happens can lose it.

        Once it is kept this returns, whatever happens then: who asks is to know its id.

        Args:
            endpoint: its name.
            subject: full, of the message.
            payload: of the message, whose blobs are stored.
            content_type: of the payload.
            key: asked for again under the same, it is the same request; None is a new one.
            tenant: who asks; keys and requests of one are hidden from others.
            headers: of the message, such as a trace; what mqinfer says itself stands above them.
            wait: seconds to wait for its end.
            race: waits, where something else may end that.
            webhook: address to be told of its end, by a stage that reads `ended.RequestEnded`.

        Raises:
            ConfigurationError: there is no such endpoint.
            DecodeError: it is said to be JSON, and is none; nothing was accepted.
            PayloadTooLarge: it exceeds the server's limit; nothing was accepted.
            RequestConflict: the key was used for something else.
            PublishError: the stream refuses the message for good; the request has failed.
            Unavailable: NATS does not answer; ask again, under the same key.
        """
        declared = self._endpoint(endpoint)
        if key is None:
            identity = places.new_id(endpoint)
        else:
            identity = places.keyed_id(endpoint, key, tenant, self._secret)
        asked = Asked(subject, Body.of(payload, content_type), dict(headers or {}))
        state = fresh.state(identity, declared, asked, tenant, self._now())
        if webhook:
            state = states.told_at(state, webhook)
        value, revision = fresh.kept(state, self._broker.max_payload), 0
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(_PAUSE.delay(attempt, random.random()))
            lives = states.lives(state, self._now())
            if await self._bucket.save(places.key_of(state.id), value, revision, ttl=lives):
                return Accepted(await self._begin(state, declared, wait, race))
            there, revision = await self._found(state.id, tenant)
            if there is None:
                # It was forgotten just now, and this one takes its place; or is not to be seen yet.
                continue
            if there.fingerprint != state.fingerprint:
                raise RequestConflict(
                    f"endpoint {endpoint}: the key {key!r} was used before, and asked for "
                    "something else: a key is for one request"
                )
            ours = there.created == state.created  # by an answer that came too late
            if there.open and self._now() < there.created + self.app.duplicate_window / 2:
                # Who accepted it may have died before its message was published: the stream knows.
                found = await self._begin(there, declared, wait, race)
            else:
                try:
                    found = await self.wait(there.id, wait, tenant=tenant, race=race)
                except Unavailable:
                    found = there
            return Accepted(found, replayed=not ours)
        raise Unavailable(f"endpoint {endpoint}: NATS neither takes the request nor has it")

    async def _begin(
        self, state: State, endpoint: Endpoint[Any], wait: float, race: Race | None
    ) -> State:
        """Publish the message of a request that was accepted, and wait for its end."""
        if wait <= 0:
            await self._publish(state, endpoint)
            return state
        # Who listens before the message is there misses nothing, and need not ask at first.
        async with self._watching(state.id) as watch:
            await self._publish(state, endpoint)
            try:
                return await self._until_ended(watch, state, wait, race)
            except Unavailable:
                return state

    async def _publish(self, state: State, endpoint: Endpoint[Any]) -> None:
        subject = self.app.subject(endpoint.reads)
        try:
            await publish_root(self._broker, state, subject, PUBLISH_TIMEOUT)
        except PublishTimeout as error:
            log.warning("a request is accepted, and waits", id=state.id, reason=str(error))
        except PublishError:
            reason = "it could not be published"
            await self._end(state, End("failed", errors=(Problem("internal", reason),)))
            raise

    # --- looking --------------------------------------------------------------------------------

    async def find(self, identity: str, *, tenant: str = "") -> State | None:
        """A request; None where there is none of this id, or not of this tenant.

        One whose deadline has passed is ended by this, should nobody else have done so.

        Raises:
            Unavailable: NATS does not answer.
        """
        if places.parts(identity) is None:
            return None
        return (await self._found(identity, tenant))[0]

    async def _found(self, identity: str, tenant: str) -> tuple[State | None, int]:
        """What `find` gives, and the revision of whatever is kept there."""
        value, revision = await self._bucket.load(places.key_of(identity)) or (b"", 0)
        state = states.decode(value) if value else None
        if state is None or state.tenant != tenant or state.expires <= self._now():
            return None, revision
        if state.open and state.deadline + GRACE <= self._now():
            return await self._end(state, End("expired")), revision
        return state, revision

    async def wait(
        self,
        identity: str,
        seconds: float | None = None,
        *,
        tenant: str = "",
        race: Race | None = None,
    ) -> State:
        """A request once it has ended, or as it is after so many seconds; None waits for its end.

        Args:
            identity: of the request.
            seconds: to wait.
            tenant: who asks.
            race: waits, where something else may end that.

        Raises:
            RequestUnknown: there is none of this id.
            Unavailable: NATS does not answer.
        """
        if seconds is not None and seconds <= 0:
            return _known(await self.find(identity, tenant=tenant), identity)
        if places.parts(identity) is None:
            raise unknown(identity)
        async with self._watching(identity) as watch:
            # The server reads in order: it listens for us before it answers this.
            state = _known(await self.find(identity, tenant=tenant), identity)
            longest = math.inf if seconds is None else seconds
            return await self._until_ended(watch, state, longest, race)

    async def progress(self, state: State) -> tuple[int, int]:
        """Of what came of an open request so far, how many messages are done, and how many not.

        Raises:
            Unavailable: NATS does not answer.
        """
        found = await self._roots.load(root_of(state).token)
        return decode_progress(found[0]).counts if found is not None and found[0] else (0, 0)

    async def answers(self, state: State) -> tuple[states.Answer, ...]:
        """The answers of a request that has ended, also where they are in the blob store.

        Raises:
            BlobError: they cannot be read.
            ConfigurationError: there is no blob store.
        """
        if not state.stored:
            return state.answers
        if self._store is None:
            raise ConfigurationError("no blob store is configured: set MQINFER_BLOBS")
        return states.decode_answers(await self._store.get(state.stored))

    async def follow(
        self, identity: str, *, after: int = 0, behind: str | None = None, tenant: str = ""
    ) -> AsyncGenerator[Followed]:
        """What comes of a request, as it comes: progress, every answer once, and at last its end.

        Args:
            identity: of the request.
            after: go on behind the event with this number; 0 is from the beginning.
            behind: and behind the answer with this id, of those told at the end, which all have the
                same number.
            tenant: who asks.

        Raises:
            RequestUnknown: there is none of this id.
            Unavailable: NATS does not answer; go on behind the last event.
        """
        if places.parts(identity) is None:
            raise unknown(identity)

        async def look() -> State:
            return _known(await self.find(identity, tenant=tenant), identity)

        async with self._watching(identity) as watch:
            state = await look()
            root = root_of(state)

            def stored(first: int) -> AsyncIterator[tuple[int, bytes]]:
                return self._events(root, first)

            where = places.pushed_event(self.app, root)
            async with self._core.listen(where, watch.heard_event):
                followed = follow(
                    *(watch, state, look, stored, self.answers, after, behind), self._now
                )
                async for one in followed:
                    yield one

    async def _events(self, root: Root, first: int) -> AsyncIterator[tuple[int, bytes]]:
        where = places.event(self.app, root)
        async for one in self._streams.messages(places.stream(self.app), where, first=first):
            yield one.sequence, one.data

    # --- ending ---------------------------------------------------------------------------------

    async def cancel(self, identity: str, *, tenant: str = "") -> State:
        """Cancel a request; one that has ended stays as it is. The work on it is stopped.

        Raises:
            RequestUnknown: there is none of this id.
            Unavailable: NATS does not answer.
        """
        state = _known(await self.find(identity, tenant=tenant), identity)
        state = _known(await self._end(state, End("canceled")), identity)
        if state.status == "canceled":
            self._core.say(places.canceled(self.app, root_of(state)))
        return state

    async def forget(self, identity: str, *, tenant: str = "") -> None:
        """Cancel a request that is open, and forget it, with its answers.

        Raises:
            RequestUnknown: there is none of this id.
            Unavailable: NATS does not answer.
        """
        state = await self.cancel(identity, tenant=tenant)
        await kept.forget(self._bucket, identity, self._now)
        if state.stored and self._store is not None:
            await drop_all(self._store, [state.stored])

    async def _end(self, state: State, end: End) -> State | None:
        return await end_request(self._bucket, state.id, root_of(state), end, self._now)

    # --- inside ---------------------------------------------------------------------------------

    def _endpoint(self, name: str) -> Endpoint[Any]:
        try:
            return self.app.endpoints[name]
        except KeyError:
            raise ConfigurationError(
                f"app {self.app.name} has no endpoint {name!r}; it has "
                f"{', '.join(self.app.endpoints) or 'none: declare one with app.endpoint(...)'}"
            ) from None

    @asynccontextmanager
    async def _watching(self, identity: str) -> AsyncIterator[Watch]:
        watch = Watch(self._pace)
        where = places.pushed_state(self.app, identity)
        self._pace.waiting += 1
        try:
            async with self._core.listen(where, watch.heard_state, watch.again):
                yield watch
        finally:
            self._pace.waiting -= 1

    async def _until_ended(
        self, watch: Watch, state: State, seconds: float, race: Race | None
    ) -> State:
        if race is None or not state.open:
            return await self._ended(watch, state, seconds)
        return await race(state, lambda: self._ended(watch, state, seconds))

    async def _ended(self, watch: Watch, state: State, seconds: float) -> State:
        until = time.monotonic() + seconds
        while state.open:
            left = until - time.monotonic()
            if left <= 0:
                return state
            # What is pushed is pushed at most once: now and then it is read.
            due = max(0.0, state.deadline + GRACE - self._now())
            pushed = await watch.state(min(left, watch.pace.seconds, due + 0.01))
            try:
                found = pushed or await self.find(state.id, tenant=state.tenant)
            except Unavailable:
                if until <= time.monotonic() or outlasted(state, self._now()):
                    raise
                await asyncio.sleep(AGAIN)  # an outage is waited out, as long as there is time
                continue
            state = _known(found, state.id)
        return state


def unknown(identity: str) -> RequestUnknown:
    """What is raised where there is no such request."""
    return RequestUnknown(
        f"there is no request {identity!r}: it is forgotten, since its answer was kept long "
        "enough, or there never was one"
    )


def _known(state: State | None, identity: str) -> State:
    if state is None:
        raise unknown(identity)
    return state
