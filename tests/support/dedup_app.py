"""An app whose workers die between two steps, for `tests/dedup/test_kills.py`; and its truth.

A picture's looks follow from its number, and so does its place, whenever it comes.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from functools import cache
from hashlib import sha256

from mqinfer import App, Message
from mqinfer.dedup.duplicates import Fingerprint, near_duplicates
from tests.support.deaths import dying

BITS = 6
app = App("alike", partitions=4)
duplicates = near_duplicates(app, bits=BITS, ack_wait=2.0)
STAGES = ("look", "dedup_enter", "dedup_pictures", "dedup_parts")  # without the tables' sinks


class Photo(Message):
    n: int


def content(n: int) -> str:
    return sha256(str(n).encode()).hexdigest()


@cache
def looks(n: int) -> int:
    """Of a few things, each seen with up to four bits changed."""
    pick = random.Random(n)
    found = random.Random(f"thing {pick.randrange(12)}").getrandbits(64)
    for _ in range(pick.randrange(5)):
        found ^= 1 << pick.randrange(64)
    return found


@app.stage(ack_wait=2.0)
async def look(photo: Photo) -> Fingerprint:
    return Fingerprint(f"photo {photo.n}", photo.n, content(photo.n), f"{looks(photo.n):016x}")


def truth(
    seen: Mapping[str, tuple[int, int]], words: Mapping[frozenset[str], bool]
) -> dict[str, str]:
    """The original of each by the rule, one after the other; `seen` has order and hash of each."""
    found: dict[str, str] = {}
    for me in sorted(seen, key=lambda one: (seen[one][0], one)):
        barred: set[str] = set()
        same = None
        for other in found:
            if (word := words.get(frozenset((me, other)))) is True:
                same = same or found[other]
            elif word is False:
                barred |= {other, found[other]}
        near = (
            other
            for other in found
            if (seen[me][1] ^ seen[other][1]).bit_count() <= BITS
            and found[other] == other
            and other not in barred
        )
        found[me] = same or next(near, me)
    return found


if steps := int(os.environ.get("DEDUP_KILL", "0")):
    dying(steps)
