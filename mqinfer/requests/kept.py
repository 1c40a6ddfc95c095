"""Kept: the bucket of the states of requests, and how one in it is ended, once."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING

from mqinfer.bucket import change
from mqinfer.requests import places
from mqinfer.requests import state as states

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.bucket import Bucket
    from mqinfer.completion.roots import Root
    from mqinfer.ports import Broker
    from mqinfer.requests.state import End, State


def bucket_of(app: App, broker: Broker) -> Bucket:
    """The bucket of the states of an app's requests."""
    return broker.bucket(
        places.bucket(app), replicas=app.replicas, ttls=True, pushed=places.pushed_states(app)
    )


async def ensure(app: App, broker: Broker) -> None:
    """Make what requests need; see `Requests.ensure`."""
    await bucket_of(app, broker).ensure()
    await broker.ensure_stream(places.events_spec(app))


async def end_request(
    bucket: Bucket,
    identity: str,
    root: Root,
    end: End,
    now: Callable[[], float],
    known: MutableMapping[str, tuple[bytes, int]] | None = None,
) -> State | None:
    """End a request, unless it has ended; as it is then, or None where it is forgotten.

    Args:
        bucket: of the states.
        identity: of the request.
        root: that it is; what began later under the same id is another one, and stays as it is.
        end: how.
        now: seconds since the epoch.
        known: its state as the caller believes it to be, by its key, which spares reading it.

    Raises:
        MqinferError: that is not possible now.
    """

    def change_one(value: bytes | None) -> bytes | None:
        if value is None:
            return None
        before = states.decode(value)
        if root_of(before) != root:
            return value
        after = states.ended(before, end, now())
        return value if after is before else states.encode(after)

    _, value = await change(
        bucket,
        places.key_of(identity),
        change_one,
        what=f"request {identity}",
        known=known,
        ttl=lambda one: states.lives(states.decode(one), now()),
    )
    return states.decode(value) if value else None


async def forget(bucket: Bucket, identity: str, now: Callable[[], float]) -> None:
    """Let a request that has ended be found no more.

    Raises:
        MqinferError: that is not possible now.
    """

    def empty(value: bytes | None) -> bytes | None:
        # Not deleted: what takes its place is small, and dropped by the server itself.
        return states.encode(states.forgotten(states.decode(value), now())) if value else None

    await change(
        bucket,
        places.key_of(identity),
        empty,
        what=f"request {identity}",
        ttl=lambda one: states.lives(states.decode(one), now()),
    )


def root_of(state: State) -> Root:
    """The request as a root of `completion`."""
    return places.root_of(state.id, state.created)
