"""MemoryStore: blobs in this process, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

from mqinfer.adapters.blobstores import too_large
from mqinfer.blob import checked_path
from mqinfer.errors import BlobNotFound

PIECE = 1024 * 1024  # bytes


class MemoryStore:
    """Blobs in this process, for tests."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}

    async def get(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """See `BlobStore.get`."""
        data = self._blobs.get(checked_path(path))
        if data is None:
            raise BlobNotFound(f"nothing is stored under {path!r}")
        if max_bytes is not None and len(data) > max_bytes:
            raise too_large(path, len(data), max_bytes)
        return data

    async def put(self, path: str, data: bytes) -> None:
        """See `BlobStore.put`."""
        self._blobs[checked_path(path)] = bytes(data)

    async def drop(self, path: str) -> None:
        """See `Dropping.drop`."""
        self._blobs.pop(checked_path(path), None)

    async def exists(self, path: str) -> bool:
        """See `BlobStore.exists`."""
        return checked_path(path) in self._blobs

    async def stream(self, path: str, *, start: int = 0) -> AsyncIterator[bytes]:
        """See `Streamed.stream`."""
        data = await self.get(path)
        for first in range(start, len(data), PIECE):
            yield data[first : first + PIECE]

    async def put_pieces(self, path: str, pieces: AsyncIterator[bytes]) -> None:
        """See `Streamed.put_pieces`."""
        await self.put(path, b"".join([piece async for piece in pieces]))

    async def names(self, prefix: str) -> AsyncIterator[str]:
        """See `Listed.names`."""
        checked_path(prefix.removesuffix("/"))
        for path in sorted(self._blobs):
            if path.startswith(prefix):
                yield path

    async def close(self) -> None:
        """Forget nothing: a test may look at what was stored."""

    def __repr__(self) -> str:
        return f"MemoryStore({len(self._blobs)} blobs)"
