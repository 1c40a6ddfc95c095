"""ObjectStore: blobs in a bucket of named objects, such as the NATS Object Store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Protocol, TypeVar

from mqinfer.adapters.blobstores import TIMEOUT, Found, too_large
from mqinfer.blob import checked_path
from mqinfer.errors import BlobNotFound, Unavailable

T = TypeVar("T")


class ObjectBucket(Protocol):
    """A flat bucket of named objects, such as NATS's; what `ObjectStore` is made of.

    Its methods raise `Unavailable` and `BlobError` themselves.
    """

    async def size(self, name: str) -> int | None:
        """Bytes of an object, or None if there is none."""

    async def version(self, name: str) -> str | None:
        """What tells an object from those of its name before and after; None if there is none."""

    async def get(self, name: str) -> bytes | None:
        """An object, or None if there is none."""

    async def put(self, name: str, data: bytes) -> None:
        """Store an object, whole or not at all."""

    def pieces(self, name: str) -> AsyncIterator[bytes]:
        """An object, some of it at a time.

        Raises:
            BlobNotFound: there is none.
        """

    async def put_pieces(self, name: str, pieces: AsyncIterator[bytes]) -> None:
        """Store an object that is made as it is stored, whole or not at all."""

    async def drop(self, name: str) -> None:
        """Drop an object; where there is none, nothing happens."""

    async def names(self) -> list[str]:
        """The names of all objects."""

    async def close(self) -> None:
        """Release what the bucket holds."""


class ObjectStore:
    """Blobs in a bucket of named objects, such as the NATS Object Store.

    Args:
        bucket: the bucket.
        timeout: seconds that one call may take.
        origin: which bucket it is, among those of all servers.
    """

    def __init__(self, bucket: ObjectBucket, *, timeout: float = TIMEOUT, origin: str = ""):
        self._bucket = bucket
        self.origin = origin
        self._timeout = timeout

    async def get(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """See `BlobStore.get`."""
        checked_path(path)
        if max_bytes is not None:
            size = await self._run(self._bucket.size(path))
            if size is not None and size > max_bytes:
                raise too_large(path, size, max_bytes)
        data = await self._run(self._bucket.get(path))
        if data is None:
            raise BlobNotFound(f"nothing is stored under {path!r}")
        return data

    async def fetch(
        self, path: str, *, unless: str = "", max_bytes: int | None = None
    ) -> Found | None:
        """See `VersionedStore.fetch`."""
        checked_path(path)
        # Asked before: if it is replaced meanwhile, the newer bytes are taken for the older.
        version = await self._run(self._bucket.version(path))
        if version is not None and version == unless:
            return None
        return Found(await self.get(path, max_bytes=max_bytes), version or "")

    async def put(self, path: str, data: bytes) -> None:
        """See `BlobStore.put`."""
        checked_path(path)
        await self._run(self._bucket.put(path, data))

    async def drop(self, path: str) -> None:
        """See `Dropping.drop`."""
        checked_path(path)
        await self._run(self._bucket.drop(path))

    async def exists(self, path: str) -> bool:
        """See `BlobStore.exists`."""
        checked_path(path)
        return await self._run(self._bucket.size(path)) is not None

    async def stream(self, path: str, *, start: int = 0) -> AsyncIterator[bytes]:
        """See `Streamed.stream`; what lies before `start` is read, and checked, all the same."""
        async for data in self._bucket.pieces(checked_path(path)):
            if new := data[start:]:
                yield new
            start = max(0, start - len(data))

    async def put_pieces(self, path: str, pieces: AsyncIterator[bytes]) -> None:
        """See `Streamed.put_pieces`."""
        await self._bucket.put_pieces(checked_path(path), pieces)

    async def names(self, prefix: str) -> AsyncIterator[str]:
        """See `Listed.names`; the names of all objects are held at once."""
        checked_path(prefix.removesuffix("/"))
        for name in sorted(await self._run(self._bucket.names())):
            if name.startswith(prefix):
                yield name

    async def close(self) -> None:
        """Close the bucket."""
        await self._bucket.close()

    async def _run(self, call: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._timeout):
                return await call
        except TimeoutError:
            raise Unavailable(
                f"the object bucket does not answer within {self._timeout:g} s"
            ) from None
