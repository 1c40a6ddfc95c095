"""Planning: the rows of a source are checked, and stored in chunks: what a job works on, for good.

A source is read once, from its beginning to its end, by whoever submits the job: its file need not
be where workers are, and may change or go once the job is accepted. (One that was accepted unread
is in the blob store, and read by a worker: `reading`.)
"""

from __future__ import annotations

from contextlib import aclosing
from hashlib import blake2b
from typing import TYPE_CHECKING, cast

import msgspec
from msgspec import Struct

from mqinfer.jobs import chunk, places

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from mqinfer.blob import BlobStore
    from mqinfer.jobs.checking import Checker
    from mqinfer.jobs.chunk import Item
    from mqinfer.jobs.sources import Read, Source


class Planned(Struct, frozen=True):
    """The rows of a job, as they are stored; the manifest.

    Attributes:
        folder: of the blobs.
        rows: how many.
        invalid: of these, how many are no message.
        first: the number of the first row of each chunk.
        fingerprint: of all of them.
    """

    folder: str
    rows: int
    invalid: int
    first: tuple[int, ...]
    fingerprint: str


async def plan(
    source: Source, checker: Checker, store: BlobStore, folder: str, most: int
) -> Planned:
    """Store the rows of a source in chunks, and last of all the manifest.

    Args:
        source: of the rows.
        checker: that makes items of them.
        store: for the chunks.
        folder: that nobody else writes to.
        most: rows of a chunk.

    Raises:
        ConfigurationError: the source cannot be read, as a whole.
        BlobError: the store refuses.
        Unavailable: it does not answer.
    """
    writing = _Writing(store, folder, most)
    blocks = cast("AsyncGenerator[list[Read]]", source.blocks())
    async with aclosing(blocks):
        async for block in blocks:
            for read in block:
                await writing.add(await checker.item(writing.rows + 1, read))
    return await writing.end()


class _Writing:
    def __init__(self, store: BlobStore, folder: str, most: int):
        self.rows = 0
        self._store = store
        self._folder = folder
        self._most = most
        self._invalid = 0
        self._items: list[Item] = []
        self._bytes = 0
        self._first: list[int] = []
        self._hash = blake2b(digest_size=16)

    async def add(self, item: Item) -> None:
        """Take one more."""
        self.rows += 1
        self._invalid += item.failure is not None
        self._items.append(item)
        self._bytes += 0 if item.body is None else len(item.body.payload)
        full = len(self._items) >= chunk.rows_of(len(self._first), self._most)
        if full or self._bytes >= chunk.MOST_BYTES:
            await self._flush()

    async def _flush(self) -> None:
        data = chunk.encode(self._items)
        self._hash.update(data)
        await self._store.put(places.chunk(self._folder, len(self._first)), data)
        self._first.append(self._items[0].row)
        self._items, self._bytes = [], 0

    async def end(self) -> Planned:
        """Nothing more comes."""
        if self._items:
            await self._flush()
        digest = self._hash.hexdigest()
        made = Planned(self._folder, self.rows, self._invalid, tuple(self._first), digest)
        await self._store.put(places.manifest(self._folder), msgspec.json.encode(made))
        return made
