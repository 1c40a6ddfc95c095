"""Bucket: keys and values that several processes change, and none undoes what another did.

A value is saved on the condition that its key's last revision is the one that was read. `change` is
the loop over that: whoever was slower reads again and tries again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, MutableMapping
from typing import Protocol

from mqinfer.backoff import Backoff
from mqinfer.errors import ConflictError

_RETRY = Backoff(initial=0.01, maximum=0.25, jitter=0.5)
_TRIES = 10

# How a `put` ended: the value's revision if it was set; else None, with what went wrong, or with
# nothing where the revision that it was to replace is not the newest (a `put` of this very value
# whose answer was lost may have replaced it).
PutDone = Callable[[int | None, Exception | None], None]


class Bucket(Protocol):
    """A bucket of a key-value store."""

    async def ensure(self) -> None:
        """Create the bucket if there is none; one that is there stays as it is."""

    async def load(self, key: str) -> tuple[bytes, int] | None:
        """A value and its revision; a value that was deleted is empty, and has a revision.

        Raises:
            Unavailable: the store does not answer.
        """

    async def save(self, key: str, value: bytes, revision: int, *, ttl: float | None = None) -> int:
        """Set a value if `revision` (0: none) is still the newest; its own, or 0 if it is not.

        Args:
            key: of the value.
            value: that is set.
            revision: that it replaces; 0 is none.
            ttl: seconds after which the server drops it; None is never.

        Raises:
            Unavailable: the store does not answer; the value may have been set.
        """

    def put(
        self, key: str, value: bytes, revision: int, done: PutDone, *, ttl: float | None = None
    ) -> None:
        """Set a value if `revision` is still the newest, and call `done` once, when that is known.

        Outages are waited out. Unlike `save`, nothing in the value says who has set it, so that
        no more is stored than it is: whoever cannot tell by reading it uses `save`.

        Args:
            key: of the value.
            value: that is set.
            revision: that it replaces; 0 is none.
            done: is told how it ended.
            ttl: seconds after which the server drops it; None is never.
        """

    async def delete(self, key: str, revision: int) -> bool:
        """Delete a value if `revision` is still the newest; False if it is not.

        Raises:
            Unavailable: the store does not answer; the value may have been deleted.
        """

    async def names(self) -> list[str]:
        """Every key, also of values that were deleted."""


async def change(
    bucket: Bucket,
    key: str,
    function: Callable[[bytes | None], bytes | None],
    *,
    what: str,
    known: MutableMapping[str, tuple[bytes, int]] | None = None,
    ttl: Callable[[bytes], float] | None = None,
) -> tuple[bytes | None, bytes | None]:
    """Change one value; tried again when another was quicker.

    Args:
        bucket: that holds it.
        key: its key.
        function: makes the new value of the old one; None is no value. Where both are the same
            nothing is written. It is called anew for every attempt.
        what: is changed, for the text of an error.
        known: values and revisions as the caller believes them to be, which spares reading those;
            brought up to date. Where nothing is to be changed in one, another may have been.
        ttl: gives the seconds after which the server drops the new value; None is never.

    Returns:
        The value before and after.

    Raises:
        ConflictError: others were quicker again and again.
        Unavailable: the store does not answer; the value may have been changed.
    """
    believed = None if known is None else known.pop(key, None)
    for attempt in range(_TRIES):
        if attempt > (believed is not None):  # a wrong belief is found out, and nobody in the way
            await asyncio.sleep(_RETRY.delay(attempt, random.random()))
        found = None if attempt else believed
        value, revision = found or await bucket.load(key) or (b"", 0)
        before = value or None
        after = function(before)
        if after == before:
            saved = revision
        elif after is None:
            saved = await bucket.delete(key, revision)
        else:
            lives = None if ttl is None else ttl(after)
            saved = await bucket.save(key, after, revision, ttl=lives)
        if saved or after == before:
            if known is not None and after is not None:
                known[key] = after, saved
            return before, after
    raise ConflictError(f"{what} keeps changing: try again")
