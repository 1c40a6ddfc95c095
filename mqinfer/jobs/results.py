"""Results: what came of the rows of a job, out of its parts, or of the file that was made of them.

Neither ever changes under its name, so that whoever reads through an outage goes on where it was.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import msgspec
import structlog

from mqinfer.blob import Streamed
from mqinfer.errors import BlobNotFound, Unavailable
from mqinfer.jobs import listing, part, places
from mqinfer.jobs import state as states
from mqinfer.requests.following import AGAIN, OUTAGE

if TYPE_CHECKING:
    from mqinfer.blob import BlobStore
    from mqinfer.jobs.part import Line
    from mqinfer.jobs.state import State

log = structlog.get_logger("mqinfer.jobs")
T = TypeVar("T")


class Patience:
    """Waits out an outage of NATS or of the blob store, until some time after a job's deadline.

    Args:
        state: of the job, as it was when it was last looked at.
        now: seconds since the epoch.
    """

    def __init__(self, state: State, now: Callable[[], float] = time.time):
        self._now = now
        self._deadline = state.deadline
        self._until: float | None = None

    async def after(self, error: Unavailable) -> None:
        """Return when it is time to try again.

        Raises:
            Unavailable: it lasts for too long.
        """
        if self._until is None:
            log.info("an outage is waited out", reason=str(error))
            self._until = max(self._deadline, self._now()) + OUTAGE
        if self._now() > self._until:
            raise error
        await asyncio.sleep(AGAIN)

    def over(self) -> None:
        """Something has answered."""
        self._until = None

    async def ask(self, question: Callable[[], Awaitable[T]]) -> T:
        """The answer to a question, asked until there is one.

        Raises:
            Unavailable: there is none for too long.
        """
        while True:
            try:
                answer = await question()
            except Unavailable as error:
                await self.after(error)
            else:
                self.over()
                return answer


async def parts(
    get: Callable[[str], Awaitable[bytes]], state: State, numbers: Iterable[int] | None = None
) -> AsyncIterator[tuple[int, list[Line]]]:
    """What came of each chunk of which there is something, with its number, in their order.

    Args:
        get: reads a blob, whose errors are raised.
        state: of the job.
        numbers: of the chunks; None is all.
    """
    for number in range(state.chunks) if numbers is None else numbers:
        turn = states.part_of(state, number)
        if turn is not None:
            data = await get(places.part(state.folder, number, turn))
            yield number, await asyncio.to_thread(part.decode, data)


def patient(store: BlobStore, state: State) -> Callable[[str], Awaitable[bytes]]:
    """Reads blobs of a job, through outages of the store."""
    patience = Patience(state)
    return lambda path: patience.ask(partial(store.get, path))


async def text(
    store: BlobStore, state: State, *, errors: bool = False, after: int = 0, start: int = 0
) -> AsyncIterator[bytes]:
    """What came of the rows so far, as lines of JSON, some bytes at a time.

    Args:
        store: of blobs.
        state: of the job.
        errors: only of rows that have errors.
        after: only of rows behind this one; no part before it is read.
        start: the first byte that is wanted of a job's file.

    Raises:
        BlobError: it cannot be read.
        Unavailable: the store does not answer, for longer than anybody would wait.
    """
    if state.written and not after:
        path = places.errors(state) if errors else places.results(state)
        begun = False
        try:
            async for data in _stored(store, path, Patience(state), start):
                begun = True
                yield data
        except BlobNotFound:
            if begun:
                raise
        else:
            return  # else somebody has taken the file away: what it was made of says the same
    get = patient(store, state)
    first = await _chunk_of(get, state, after + 1) if after else 0
    async for _, lines in parts(get, state, range(first, state.chunks)):
        some = [line for line in lines if line.row > after and (line.errors or not errors)]
        if some:
            data = await asyncio.to_thread(listing.encode, some)
            if new := data[start:]:
                yield new
            start = max(0, start - len(data))


async def _chunk_of(get: Callable[[str], Awaitable[bytes]], state: State, row: int) -> int:
    """The number of the chunk that a row is in."""
    data = await get(places.manifest(state.folder))
    return max(0, bisect_right(msgspec.json.decode(data, type=_Manifest).first, row) - 1)


class _Manifest(msgspec.Struct):
    first: list[int]


async def _stored(
    store: BlobStore, path: str, patience: Patience, start: int
) -> AsyncIterator[bytes]:
    """What is under a path from a byte on, through outages of the store."""
    if not isinstance(store, Streamed):
        yield (await patience.ask(partial(store.get, path)))[start:]
        return
    while True:
        try:
            async for data in store.stream(path, start=start):
                patience.over()
                start += len(data)
                yield data
        except Unavailable as error:
            await patience.after(error)
        else:
            return
