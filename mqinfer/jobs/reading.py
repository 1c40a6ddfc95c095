"""Reading: what a worker does for a job that was accepted unread: its rows are checked and stored.

Whoever accepts such a job writes one value, and may die; so may the worker at any moment: another
reads the rows anew, into a folder of its own. Of two that do one is taken.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, cast

from mqinfer.codec import Codec
from mqinfer.errors import BlobNotFound, BlobPathError, ConfigurationError
from mqinfer.jobs import places, planning, source
from mqinfer.jobs import state as states
from mqinfer.jobs.checking import Checker, encoder

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.blob import BlobStore
    from mqinfer.jobs.sources import Read, Source
    from mqinfer.jobs.state import State
    from mqinfer.ports import Broker

_LOOK: Final = 1.0  # seconds between looks whether anybody still wants them

# What becomes of a job; its second argument is the time, in seconds since the epoch.
Change = Callable[["State", float], "State"]


class _Unwanted(Exception):
    """The job was stopped meanwhile."""


async def read(
    app: App,
    state: State,
    store: BlobStore,
    broker: Broker,
    inline_limit: int,
    wanted: Callable[[], Awaitable[bool]],
) -> Change | None:
    """Read the rows of a job; what becomes of it by that, or None where it was stopped.

    Args:
        app: whose.
        state: of the job.
        store: that has the rows, and gets the chunks.
        broker: that carries the messages later.
        inline_limit: bytes of a blob that ride in a message.
        wanted: whether the job still waits for them.

    Raises:
        BlobError: the store refuses.
        Unavailable: it, or NATS, does not answer.
    """
    unread = state.unread
    assert unread is not None
    kind, codec = app.endpoints[state.endpoint].reads, Codec(store)
    encode = encoder(codec, store, inline_limit, broker)
    checker = Checker(kind, codec, encode, broker.max_payload, unread.prefix)
    folder = places.new_folder(state.id)
    try:
        async with source.opened(unread.rows, kind, store, unread.form or None) as opened:
            rows = _Watched(opened, wanted)
            made = await planning.plan(rows, checker, store, folder, unread.most)
    except _Unwanted:
        return None
    except (ConfigurationError, BlobNotFound, BlobPathError) as error:
        gone = f"nothing is stored under {unread.rows.removeprefix(source.STORED)!r}"
        reason = gone if isinstance(error, BlobNotFound) else str(error)
        return lambda one, now: states.unreadable(one, reason, now)
    return lambda one, _: states.planned(one, folder, made.rows, len(made.first))


class _Watched:
    """Rows that are read for as long as somebody wants them; see `jobs.sources.Source`."""

    def __init__(self, rows: Source, wanted: Callable[[], Awaitable[bool]]):
        self._rows = rows
        self._wanted = wanted

    async def blocks(self) -> AsyncIterator[list[Read]]:
        """Some of the rows at a time."""
        looked = time.monotonic()
        blocks = cast("AsyncGenerator[list[Read]]", self._rows.blocks())
        async with aclosing(blocks):
            async for block in blocks:
                if time.monotonic() > looked + _LOOK:
                    if not await self._wanted():
                        raise _Unwanted
                    looked = time.monotonic()
                yield block
