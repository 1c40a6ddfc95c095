"""Accepting: how a job comes to be: one write, of a job whose rows are stored, or named.

`submit` reads the rows first, which takes as long as they are many. `accept` leaves that to a
worker (`reading`), so that whoever accepts keeps nobody waiting, and may die at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from mqinfer.errors import ConfigurationError, RequestConflict, Unavailable
from mqinfer.jobs import chunk, places, planning, source
from mqinfer.jobs import state as states
from mqinfer.jobs.checking import Checker
from mqinfer.jobs.state import State, Unread
from mqinfer.joinwiring import below

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.blob import BlobStore
    from mqinfer.bucket import Bucket
    from mqinfer.codec import Codec
    from mqinfer.endpoint import Endpoint
    from mqinfer.jobs.checking import Encode
    from mqinfer.ports import Broker

LASTS = 24 * 3600.0  # seconds that a job may take
KEEP = 7 * 24 * 3600.0  # seconds for which its end is kept
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Terms:
    """How a job is to be done.

    Attributes:
        max_failures: how many rows may fail before it is stopped; None is any number.
        lasts: seconds after which it ends, whatever came of it.
        keep: seconds for which it is kept after that.
        most: rows of a chunk; None is as many as what may come of them allows.
    """

    max_failures: int | None = None
    lasts: float = LASTS
    keep: float = KEEP
    most: int | None = None


class Accepting:
    """The part of `Jobs` that accepts."""

    app: App
    _broker: Broker
    _bucket: Bucket
    _store: BlobStore
    _codec: Codec
    _encode: Encode
    _secret: str
    _now: Callable[[], float]

    async def find(self, identity: str, *, tenant: str = "") -> State | None:
        """See `Jobs.find`."""
        raise NotImplementedError

    async def submit(
        self,
        endpoint: str,
        rows: source.Named,
        *,
        form: str | None = None,
        key: str | None = None,
        tenant: str = "",
        terms: Terms | None = None,
    ) -> tuple[State, bool]:
        """Store the rows, and accept the job; with it, whether it was there under its key.

        Args:
            endpoint: its name.
            rows: a file, a folder, or rows; see `jobs.source`.
            form: of a file; None is what its name ends in.
            key: submitted again under the same, it is the same job; None is a new one.
            tenant: who submits; keys and jobs of one are hidden from others.
            terms: how it is to be done.

        Raises:
            ConfigurationError: there is no such endpoint, or the source cannot be read.
            RequestConflict: the key was used for something else.
            BlobError: the store refuses.
            Unavailable: it, or NATS, does not answer; submit again, under the same key.
        """
        declared = self._endpoint(endpoint)
        given = terms or Terms()
        most = self._most(declared, given)
        identity = self._identity(endpoint, key, tenant)
        folder = places.new_folder(identity)
        checker = Checker(declared.reads, self._codec, self._encode, self._broker.max_payload)
        async with source.opened(rows, declared.reads, self._store, form) as opened:
            planned = await planning.plan(opened, checker, self._store, folder, most)
        state = self._new(identity, endpoint, tenant, given, planned.fingerprint)
        parts, again = states.blank(len(planned.first))
        state = msgspec.structs.replace(
            state,
            folder=folder,
            rows=planned.rows,
            chunks=len(planned.first),
            parts=parts,
            again=again,
        )
        return await self._begin(state, key)

    async def accept(
        self,
        endpoint: str,
        rows: str | Sequence[bytes],
        *,
        form: str = "",
        prefix: str = "",
        key: str | None = None,
        tenant: str = "",
        terms: Terms | None = None,
    ) -> tuple[State, bool]:
        """Accept a job whose rows a worker reads later; with it, whether it was there.

        Args:
            endpoint: its name.
            rows: `blob:path` of a file, or `blob:prefix/` of pictures; or each as JSON.
            form: of a file; "" is what its name ends in.
            prefix: of the paths of blobs that rows may name; "" is any.
            key: as of `submit`, and so are:
            tenant: who submits.
            terms: how it is to be done.

        Raises:
            ConfigurationError: there is no such endpoint.
            RequestConflict: the key was used for something else.
            BlobError: the store refuses.
            Unavailable: it, or NATS, does not answer; accept it again, under the same key.
        """
        given = terms or Terms()
        most = self._most(self._endpoint(endpoint), given)
        named = (given.max_failures, given.lasts, given.keep, given.most, form, prefix)
        told = msgspec.msgpack.encode((rows, named))
        digest = await asyncio.to_thread(lambda: blake2b(told, digest_size=16).hexdigest())
        identity = self._identity(endpoint, key, tenant)
        state = self._new(identity, endpoint, tenant, given, digest)
        if key is not None and (there := await self.find(identity, tenant=tenant)) is not None:
            return _same(there, state, key), True
        if not isinstance(rows, str):
            path = f"{places.new_folder(identity)}/rows.jsonl"
            await self._store.put(path, b"\n".join(rows))
            rows = source.STORED + path
        unread, folder = Unread(rows, most, form, prefix), places.new_folder(identity)
        state = msgspec.structs.replace(state, unread=unread, folder=folder)
        return await self._begin(state, key)

    def _identity(self, endpoint: str, key: str | None, tenant: str) -> str:
        if key is None:
            return places.new_id(endpoint)
        return places.keyed_id(endpoint, key, tenant, self._secret)

    def _most(self, endpoint: Endpoint[Any], terms: Terms) -> int:
        """Rows of a chunk: of one root, so many messages may come."""
        under = below(self.app.stages, endpoint.reads, own=True)
        fans = any(stage.signature.many for stage in under)
        # The record of a chunk names its items, in one message.
        room = self._broker.max_payload // 256
        return min(terms.most or (chunk.FANS if fans else chunk.MOST), room)

    def _new(
        self, identity: str, endpoint: str, tenant: str, terms: Terms, fingerprint: str
    ) -> State:
        now = self._now()
        return State(
            id=identity,
            endpoint=endpoint,
            created=now,
            deadline=now + terms.lasts,
            expires=now + terms.lasts + terms.keep,
            keep=terms.keep,
            lasts=terms.lasts,
            fingerprint=fingerprint,
            folder="",
            rows=0,
            chunks=0,
            tenant=tenant,
            max_failures=-1 if terms.max_failures is None else terms.max_failures,
        )

    async def _begin(self, state: State, key: str | None) -> tuple[State, bool]:
        """Keep a new job; one that is there under its key stays, and is given instead."""
        value, revision = states.encode(state), 0
        where, lives = places.key_of(state.id), states.lives(state, state.created)
        for _ in range(_TRIES):
            if await self._bucket.save(where, value, revision, ttl=lives):
                return state, False
            old, revision = await self._bucket.load(where) or (b"", 0)
            there = states.decode(old) if old else None
            if there is not None and there.expires > self._now():
                return _same(there, state, key), True
            # One that was forgotten just now is still there: the new one takes its place.
        raise Unavailable(f"endpoint {state.endpoint}: the key {key!r} comes and goes: ask again")

    def _endpoint(self, name: str) -> Endpoint[Any]:
        try:
            return self.app.endpoints[name]
        except KeyError:
            raise ConfigurationError(
                f"app {self.app.name} has no endpoint {name!r}; it has "
                f"{', '.join(self.app.endpoints) or 'none: declare one with app.endpoint(...)'}"
            ) from None


def _same(there: State, asked: State, key: str | None) -> State:
    """The job that is there under a key, if it is the one that is asked for."""
    if there.fingerprint != asked.fingerprint:
        raise RequestConflict(
            f"endpoint {asked.endpoint}: the key {key!r} was used before, for a job of other rows: "
            "a key is for one job"
        )
    return there
