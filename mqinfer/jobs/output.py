"""Output: the results of a job that has ended, and its errors, as a file each in the blob store.

They are made of the parts, as a stream. Parts never change, and so whoever makes a file makes the
same; its name has the round, so that one who is late with it replaces no newer one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from mqinfer.blob import put_pieces
from mqinfer.jobs import listing, places
from mqinfer.jobs.results import parts

if TYPE_CHECKING:
    from mqinfer.blob import BlobStore
    from mqinfer.jobs.state import State


async def write(store: BlobStore, state: State) -> tuple[int, int]:
    """Write both files of a job of which nothing is under way.

    Returns:
        The bytes of the results and of the errors.

    Raises:
        BlobError: a part cannot be read, or the store refuses.
        Unavailable: the store does not answer.
    """
    wrong: list[int] = []  # chunks with errors, which are read once more: most have none
    sizes = [0, 0]

    async def results() -> AsyncIterator[bytes]:
        async for number, lines in parts(store.get, state):
            if any(line.errors for line in lines):
                wrong.append(number)
            data = await asyncio.to_thread(listing.encode, lines)
            sizes[0] += len(data)
            yield data

    async def errors() -> AsyncIterator[bytes]:
        async for _, lines in parts(store.get, state, wrong):
            some = [line for line in lines if line.errors]
            data = await asyncio.to_thread(listing.encode, some)
            sizes[1] += len(data)
            yield data

    await put_pieces(store, places.results(state), results())
    await put_pieces(store, places.errors(state), errors())
    return sizes[0], sizes[1]
