"""Dropped: blobs that nobody needs any more; what cannot be dropped costs space, nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import structlog

from mqinfer.blob import Dropping, Listed
from mqinfer.errors import MqinferError

if TYPE_CHECKING:
    from mqinfer.blob import BlobStore

log = structlog.get_logger("mqinfer.blobs")

_AT_ONCE: Final = 16


async def drop_all(store: BlobStore, paths: Iterable[str]) -> None:
    """Drop what is under some paths, where the store can do that."""
    if not isinstance(store, Dropping):
        return
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(path: str) -> None:
        async with turns:
            try:
                await store.drop(path)
            except MqinferError as error:
                log.warning("a blob keeps its space", path=path, reason=str(error))

    await asyncio.gather(*map(one, paths))


async def drop_folder(store: BlobStore, prefix: str) -> None:
    """Drop all blobs whose paths begin with `prefix`, which ends in `/`; see `drop_all`."""
    if not isinstance(store, Listed):
        return
    try:
        paths = [path async for path in store.names(prefix)]
    except MqinferError as error:
        log.warning("blobs keep their space", prefix=prefix, reason=str(error))
        return
    await drop_all(store, paths)
