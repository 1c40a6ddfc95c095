"""Birth: the day by which the rows of a lineage are stored, read from the id of its first input.

All copies of a row must meet in one partition of its table, whenever they come and whoever makes
them (promise 2). So a birth follows from one thing that they share: the id of the first input,
which every row has in `_ancestors`, as workers of every version hand it on. An id tells it

* by being a UUID of version 7 (RFC 9562), as what clients publish without an id has, or
* by ending in a day: `photo-17@2026-05-27`.

Any other id may be given again on any later day, and so may the number of a place in a stream that
was made anew: they have no birth, and their rows lie together in a partition of their own.

The rule is a default that the table itself has (`BIRTH_SQL`): whatever version inserts a row, or
copies a table, the server says the same, and a table keeps the rule that it was made with.
"""

from __future__ import annotations

import secrets
import time
import uuid
from typing import Final

# The first input's id, and what it may say. Not by regular expressions, which take much longer.
_ROOT = "if(empty(_ancestors), _id, _ancestors[1])"
_UUID7 = (
    f"length({_ROOT}) = 36 AND substring({_ROOT}, 15, 1) = '7' "
    f"AND toUUIDOrZero({_ROOT}) != toUUIDOrZero('')"
)
_DATED = " AND ".join(
    f"substring({_ROOT}, -{place}, 1) = '{mark}'" for place, mark in ((11, "@"), (6, "-"), (3, "-"))
)
_HEX = f"concat(substring({_ROOT}, 1, 8), substring({_ROOT}, 10, 4))"
_TIME = f"reinterpretAsInt64(reverse(unhex({_HEX})))"
_DAY = f"toInt64(toDateOrZero(right({_ROOT}, 10))) * 86400000"
_TOLD = f"multiIf({_UUID7}, {_TIME}, {_DATED}, {_DAY}, toInt64(0))"

# SQL for the birth of a row, of its own columns; the epoch where there is none. Outside of 2020 to
# 2099 a clock was not set; each day is a partition, and there must be an end of them.
BIRTH_SQL: Final = (
    f"fromUnixTimestamp64Milli(if({_TOLD} BETWEEN 1577836800000 AND 4102444799999, {_TOLD}, "
    "toInt64(0)), 'UTC')"
)


def new_id() -> str:
    """A random id that tells the time: a UUID of version 7."""
    milliseconds = time.time_ns() // 1_000_000
    value = milliseconds << 80 | 0x7 << 76 | 0b10 << 62
    value |= secrets.randbits(12) << 64 | secrets.randbits(62)
    return str(uuid.UUID(int=value))
