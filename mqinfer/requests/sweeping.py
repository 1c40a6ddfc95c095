"""Sweeping: large answers of requests that are forgotten are dropped, by workers, now and then.

They lie in a folder of the day on which they are forgotten, so nothing has to be known of a request
to drop them; and of requests whose answers are kept with them nothing has to be done at all.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import structlog

from mqinfer.blob import Dropping, Listed
from mqinfer.dropped import drop_all
from mqinfer.errors import MqinferError

if TYPE_CHECKING:
    from mqinfer.blob import BlobStore

log = structlog.get_logger("mqinfer.requests")

FOLDER: Final = "requests/"
EVERY = 6 * 3600.0  # seconds between two looks, at most
LATER = 86_400.0  # seconds that they stay beyond their day: clocks differ, and ends take a while
_DAY = re.compile(r"requests/([0-9]{4}-[0-9]{2}-[0-9]{2})/")
_AT_ONCE: Final = 500


def path_of(identity: str, expires: float, digest: str) -> str:
    """Where large answers are.

    Args:
        identity: of the request.
        expires: when it is forgotten, in seconds since the epoch.
        digest: of the answers.
    """
    return f"{FOLDER}{_day(expires)}/{identity}.{digest}.json"


async def sweep(store: BlobStore, now: Callable[[], float] = time.time) -> None:
    """Drop what is past, now and then, until this is cancelled.

    Args:
        store: of blobs; in one that cannot tell what it has, or drop it, all stays.
        now: seconds since the epoch.
    """
    while isinstance(store, Listed) and isinstance(store, Dropping):
        # Not all workers at once, though that is harmless.
        await asyncio.sleep(random.uniform(0.0, EVERY))
        try:
            dropped = await drop_past(store, now())
        except MqinferError as error:
            log.info("answers of requests that are forgotten stay", reason=str(error))
        else:
            if dropped:
                log.info("answers of requests that are forgotten were dropped", blobs=dropped)


async def drop_past(store: BlobStore, now: float) -> int:
    """Drop the answers of days that are past; how many.

    Raises:
        MqinferError: the store cannot tell what it has.
    """
    assert isinstance(store, Listed)
    dropped, some = 0, list[str]()
    today = _day(now - LATER)
    async for path in store.names(FOLDER):
        day = _DAY.match(path)
        if day is not None and day[1] >= today:
            break  # they come in their order
        if day is not None:
            some.append(path)
        if len(some) == _AT_ONCE:
            await drop_all(store, some)
            dropped += len(some)
            some.clear()
    await drop_all(store, some)
    return dropped + len(some)


def _day(moment: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(moment))
