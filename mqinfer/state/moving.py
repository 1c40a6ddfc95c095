"""Moving: the states of a stage that was renamed go on under its new name."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mqinfer.state import record as records

if TYPE_CHECKING:
    from mqinfer.bucket import Bucket

AT_ONCE = 256  # states that are copied side by side


async def move(old: str, new: str, bucket: Bucket, ttl: float | None) -> int:
    """Copy the live states of `old` to `new`, and delete them; the number of those that moved.

    No worker may be at work for either. Killed half way, it can be run again.

    Args:
        old: name of the stage that was.
        new: its name now.
        bucket: of the app's states.
        ttl: seconds that a state is kept from now on; None is for ever.

    Raises:
        Unavailable: the server does not answer.
    """
    start = records.prefix(old, None)
    keys = [key for key in await bucket.names() if key == start or key.startswith(f"{start}.")]
    moved = 0

    async def one(key: str) -> None:
        nonlocal moved
        value, revision = await bucket.load(key) or (b"", 0)
        if not value:
            return
        await _created(bucket, records.prefix(new, None) + key.removeprefix(start), value, ttl)
        await bucket.delete(key, revision)
        moved += 1

    for begin in range(0, len(keys), AT_ONCE):
        await asyncio.gather(*map(one, keys[begin : begin + AT_ONCE]))
    return moved


async def _created(bucket: Bucket, key: str, value: bytes, ttl: float | None) -> None:
    """Set a value where there is none; one that is there is this one, or has gone on since."""
    stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(_revision: int | None, error: Exception | None) -> None:
        if stored.done():
            return
        if error is None:
            stored.set_result(None)
        else:
            stored.set_exception(error)

    bucket.put(key, value, 0, done, ttl=ttl)
    await stored
