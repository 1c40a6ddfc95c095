"""CachedStore: a store far away, read through copies on the local disk.

What it gives is what the store has. The bytes under a path that is their own digest cannot change,
so a copy is believed for as long as `TRUSTED`; of any other the store is asked, each time, whether
it still has this version, which costs a round trip and no bytes. A blob that was deleted is so here
at once, one under its digest after `TRUSTED` at the latest.

The disk is never a reason to fail: where it is full, slow or not ours, blobs come from the store as
without it, and one line in the log says so.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import structlog

from mqinfer.adapters.blobstores import Found, VersionedStore, too_large
from mqinfer.adapters.blobstores.diskcache import BUSY, DiskCache, Entry
from mqinfer.blob import Dropping, Listed, Streamed, checked_path, digest_of
from mqinfer.errors import BlobError, BlobNotFound

if TYPE_CHECKING:
    from mqinfer.counts import BlobCacheMetrics

T = TypeVar("T")
log = structlog.get_logger("mqinfer.blobs")

TRUSTED = 60.0  # seconds for which a copy under its digest is given without asking the store
THREADS = 8
_DISK = 5.0  # seconds after which the disk is slower than any store
_SLOWEST = 10e6  # bytes a second that a disk must take
_OTHERS = 5.0  # seconds to wait for another process that fetches the same blob
_AGAIN = 10.0  # seconds after which a disk that did not work is tried again


def _nothing(_: object) -> None:
    """Nobody waits for the end, and nothing is to be done then."""


class CachedStore:
    """A `BlobStore` that reads through a cache on disk.

    Args:
        store: that has the blobs.
        cache: where copies are kept; other processes may use it, too.
        counts: of what came from where.
    """

    def __init__(self, store: VersionedStore, cache: DiskCache, counts: BlobCacheMetrics):
        self._store = store
        self._cache = cache
        self._counts = counts
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="mqinfer-blob-cache")
        self._flights: dict[str, asyncio.Event] = {}
        self._ill_until = 0.0
        self._told = False

    async def get(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """See `BlobStore.get`."""
        checked_path(path)
        key = hashlib.sha256(f"{self._store.origin}\0{path}".encode(errors="replace")).hexdigest()
        known = await self._known(path, key, max_bytes)
        if known is not None:
            return known
        flight = self._flights.get(key)
        if flight is None:
            return await self._fetch(path, key, max_bytes)
        await flight.wait()
        known = await self._known(path, key, max_bytes)
        if known is not None:
            return known
        return (await self._from_store(path, max_bytes)).data  # it could not be kept

    async def put(self, path: str, data: bytes) -> None:
        """See `BlobStore.put`; whoever reads it asks for its version."""
        await self._store.put(path, data)

    async def drop(self, path: str) -> None:
        """See `Dropping.drop`; a copy here is asked about before it is given, and so gone, too.

        Raises:
            BlobError: the store drops nothing.
        """
        if not isinstance(self._store, Dropping):
            raise BlobError(f"{self._store!r} drops nothing")
        await self._store.drop(path)

    async def exists(self, path: str) -> bool:
        """See `BlobStore.exists`."""
        return await self._store.exists(path)

    async def stream(self, path: str, *, start: int = 0) -> AsyncIterator[bytes]:
        """See `Streamed.stream`; past the cache, where the store can do that."""
        if not isinstance(self._store, Streamed):
            yield (await self.get(path))[start:]
            return
        async for data in self._store.stream(path, start=start):
            yield data

    async def put_pieces(self, path: str, pieces: AsyncIterator[bytes]) -> None:
        """See `Streamed.put_pieces`; past the cache, too."""
        if isinstance(self._store, Streamed):
            await self._store.put_pieces(path, pieces)
        else:
            await self._store.put(path, b"".join([piece async for piece in pieces]))

    async def names(self, prefix: str) -> AsyncIterator[str]:
        """See `Listed.names`.

        Raises:
            BlobError: the store cannot tell what it has.
        """
        if not isinstance(self._store, Listed):
            raise BlobError(f"{self._store!r} cannot tell what it has")
        async for path in self._store.names(prefix):
            yield path

    async def close(self) -> None:
        """Take no more work, and close the store."""
        self._ill_until = float("inf")
        self._pool.shutdown(wait=False, cancel_futures=True)
        await self._store.close()

    # --- inside -----------------------------------------------------------------------------------

    async def _known(self, path: str, key: str, max_bytes: int | None) -> bytes | None:
        """What the cache has, if the store has it still; else what the store has instead.

        None: the cache has nothing.
        """
        entry = await self._disk(self._cache.read, key, max_bytes)
        if entry is None:
            return None
        own = digest_of(path) is not None
        if not own or not 0 <= time.time() - entry.confirmed < TRUSTED:
            try:
                found = await self._store.fetch(path, unless=entry.version, max_bytes=max_bytes)
            except BlobNotFound:
                await self._disk(self._cache.forget, key)
                raise
            if found is not None:
                return await self._replaced(path, key, found)
            if own:
                await self._disk(self._cache.confirm, key)
        return self._hit(path, entry, max_bytes)

    def _hit(self, path: str, entry: Entry, max_bytes: int | None) -> bytes:
        if max_bytes is not None and entry.size > max_bytes:
            raise too_large(path, entry.size, max_bytes)
        self._counts.hit(entry.size)
        return entry.data

    async def _replaced(self, path: str, key: str, found: Found) -> bytes:
        self._counts.miss(len(found.data))
        claim = await self._claim(key)
        if claim is not None and claim != BUSY:
            await self._keep(path, key, claim, found)
        return found.data

    async def _fetch(self, path: str, key: str, max_bytes: int | None) -> bytes:
        """Fetch a blob that the cache does not have, once for all who want it."""
        flight = self._flights[key] = asyncio.Event()
        claim: int | None = None
        try:
            claim = await self._turn(key)
            # Another may have kept it since it was looked for, whether or not it was waited for.
            if (known := await self._known(path, key, max_bytes)) is not None:
                return known
            found = await self._from_store(path, max_bytes)
            if claim is not None:
                mine, claim = claim, None
                await self._keep(path, key, mine, found)
            return found.data
        finally:
            if claim is not None:
                self._release(key, claim)
            del self._flights[key]
            flight.set()

    async def _turn(self, key: str) -> int | None:
        """A claim on a blob, once no other process has it.

        None: the disk does not work, or the other takes too long.
        """
        until, pause = time.monotonic() + _OTHERS, 0.002
        while (claim := await self._claim(key)) == BUSY:
            if time.monotonic() > until:
                return None
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.05)
        return claim

    async def _from_store(self, path: str, max_bytes: int | None) -> Found:
        found = await self._store.fetch(path, max_bytes=max_bytes)
        assert found is not None  # nothing was said to be known
        self._counts.miss(len(found.data))
        return found

    async def _keep(self, path: str, key: str, claim: int, found: Found) -> None:
        digest = digest_of(path)

        def keep() -> None:
            right = digest is None or hashlib.sha256(found.data).hexdigest() == digest
            # Without a version only a digest says what it is.
            if right and (found.version or digest):
                self._cache.keep(key, claim, found.version, found.data)
            else:
                self._cache.release(key, claim)

        def lost(done: Future[None] | None) -> None:
            if done is None or done.cancelled():
                self._cache.release(key, claim)

        await self._disk(keep, patience=_DISK + len(found.data) / _SLOWEST, lost=lost)

    async def _claim(self, key: str) -> int | None:
        """A claim on a blob, or `BUSY`; None where the disk does not work."""

        def lost(done: Future[int] | None) -> None:
            if done is None or done.cancelled() or done.exception() is not None:
                return
            if done.result() != BUSY:
                self._cache.release(key, done.result())

        return await self._disk(self._cache.claim, key, lost=lost)

    def _release(self, key: str, claim: int) -> None:
        try:
            self._pool.submit(self._cache.release, key, claim)
        except RuntimeError:  # closed
            self._cache.release(key, claim)

    async def _disk(
        self,
        work: Callable[..., T],
        *args: object,
        patience: float = _DISK,
        lost: Callable[[Future[T] | None], None] = _nothing,
    ) -> T | None:
        """Work on the disk in a thread; None where it fails, or failed a moment ago.

        Args:
            work: what blocks.
            *args: of it.
            patience: seconds.
            lost: called where nobody waits for the end: with the work, when it is over, or with
                None if it never was begun.
        """
        if time.monotonic() < self._ill_until:
            lost(None)
            return None
        future: Future[T] | None = None
        try:
            future = self._pool.submit(work, *args)
            async with asyncio.timeout(patience):
                result = await asyncio.wrap_future(future)
        except (OSError, RuntimeError, ValueError) as error:  # a timeout is an OSError
            if future is None:
                lost(None)
            elif not future.done() or future.cancelled():
                future.add_done_callback(lost)
            self._ill(error)
            return None
        except BaseException:
            if future is not None:
                future.add_done_callback(lost)
            raise
        if self._told:
            self._told = False
            log.info("the blob cache works again", folder=self._cache.home)
        return result

    def _ill(self, error: Exception) -> None:
        self._ill_until = time.monotonic() + _AGAIN
        if not self._told:
            self._told = True
            reason = getattr(error, "strerror", None) or str(error) or "it does not answer"
            log.warning(
                "the blob cache cannot be used; blobs are read from the store",
                folder=self._cache.home,
                reason=reason,
            )

    def __repr__(self) -> str:
        return f"CachedStore({self._store!r}, {self._cache!r})"
