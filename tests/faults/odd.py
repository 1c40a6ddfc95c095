"""Odd values: a message, and the row made of it, with what often breaks on its way into a table.

What the values are follows from the input's number; they are compared bit by bit.
"""

from __future__ import annotations

import hashlib
import math
import random
import struct
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from mqinfer import Blob, Column, Message, Row

_FINITE = (-0.0, 0.0, 5e-324, 1.7976931348623157e308, 0.1, -1e-9)
_REALS = (math.nan, math.inf, -math.inf, *_FINITE)
_TEXTS = (
    "",
    "\0",
    "a\0b",
    "\U0001f33f\U0001f600",
    "\u200d\ufeff",
    " \t\r\n",
    "NULL",
    "\\N",
    "'\"`",
)
_WHOLE = (0, -1, 2**63 - 1, -(2**63), 2**53 + 1)
_HUGE = (0, 2**63, 2**64, -(2**64) - 1, 2**255 - 1, -(2**255), 10**40)
_DAYS = (date(1900, 1, 1), date(1969, 12, 31), date(1970, 1, 1), date(2299, 12, 31))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOMENTS = (
    _EPOCH - timedelta(microseconds=1),
    datetime(1900, 1, 1, tzinfo=UTC),
    datetime(1969, 7, 20, 20, 17, 40, 999_999, tzinfo=UTC),
    datetime(2262, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
)
_PRICES = ("0", "-0.000000000000000001", "12345678901234567890.123456789012345678", "1.10")
# Rides in the message; goes to the store; is larger than many a server's message.
_SIZES = (0, 1, 3_000, 80_000, 1_200_000)
_SIZE_WEIGHTS = (20, 20, 40, 18, 2)


class Odd(Message, subject="odd", wire="msgpack"):
    """Values as they come in."""

    number: int
    real: float
    text: str
    data: bytes
    day: date
    moment: datetime
    whole: int
    huge: Decimal
    maybe: float | None
    reals: list[float]
    vector: NDArray[np.float32]
    price: Decimal
    tags: dict[str, int | None]
    key: UUID
    blob: Blob


class Oddity(Row, table="oddity", order_by=("number",)):
    """The same values in a table; of the blob what tells whether it is whole."""

    number: int
    real: float
    text: str
    data: bytes
    day: date
    moment: datetime
    whole: int
    huge: Annotated[int, Column("Int256")]
    maybe: float | None
    reals: list[float]
    vector: NDArray[np.float32]
    price: Decimal
    tags: dict[str, int | None]
    key: UUID
    size: int
    digest: str


_SAME = tuple(name for name in Oddity.__struct_fields__ if name in Odd.__struct_fields__)

# What a query reads, so that nothing is lost on the way out of the table.
COLUMNS = (
    "number, reinterpretAsUInt64(real) AS real, hex(text) AS text, hex(data) AS data, "
    "toInt32(day) AS day, toUnixTimestamp64Micro(moment) AS moment, whole, toString(huge) AS huge, "
    "if(isNull(maybe), NULL, reinterpretAsUInt64(assumeNotNull(maybe))) AS maybe, "
    "arrayMap(x -> reinterpretAsUInt64(x), reals) AS reals, "
    "arrayMap(x -> reinterpretAsUInt32(x), vector) AS vector, toString(price) AS price, "
    "tags, toString(key) AS key, size, digest"
)


def odd_of(number: int) -> Odd:
    """The odd values of an input."""
    rng = random.Random(f"odd {number}")
    huge = rng.choice(_HUGE)
    # A row with both goes neither as JSON nor as msgpack, and is refused.
    pool = _FINITE if huge.bit_length() > 63 else _REALS
    reals = [rng.choice(pool) for _ in range(rng.choice((0, 1, 7)))]
    (size,) = rng.choices(_SIZES, _SIZE_WEIGHTS)
    return Odd(
        number=number,
        real=rng.choice(pool),
        text=rng.choice(_TEXTS),
        data=rng.choice((b"", b"\0", rng.randbytes(9))),
        day=rng.choice(_DAYS),
        moment=rng.choice(_MOMENTS),
        whole=rng.choice(_WHOLE),
        huge=Decimal(huge),
        maybe=rng.choice((None, *pool)),
        reals=reals,
        vector=np.array(reals[:3]).clip(-1e38, 1e38).astype(np.float32),
        price=Decimal(rng.choice(_PRICES)),
        tags={rng.choice(_TEXTS): rng.choice((None, *_WHOLE)) for _ in range(rng.choice((0, 2)))},
        key=UUID(int=rng.choice((0, 2**128 - 1, rng.getrandbits(128)))),
        blob=Blob(rng.randbytes(size)),
    )


async def row_of(odd: Odd) -> Oddity:
    """The row of a message."""
    data = await odd.blob.bytes()
    same = {name: getattr(odd, name) for name in _SAME}
    same["huge"] = int(odd.huge)
    return Oddity(**same, size=len(data), digest=hashlib.sha256(data).hexdigest())


def expected_row(number: int) -> tuple[Any, ...]:
    """What the table must show of an input, as `shown_row` gives it."""
    odd = odd_of(number)
    data = odd.blob.inline or b""
    return _comparable(
        {
            "number": number,
            "real": _bits(odd.real),
            "text": odd.text.encode().hex().upper(),
            "data": odd.data.hex().upper(),
            "day": (odd.day - date(1970, 1, 1)).days,
            "moment": (odd.moment - _EPOCH) // timedelta(microseconds=1),
            "whole": odd.whole,
            "huge": str(odd.huge),
            "maybe": None if odd.maybe is None else _bits(odd.maybe),
            "reals": [_bits(real) for real in odd.reals],
            "vector": odd.vector.view(np.uint32).tolist(),
            "price": odd.price,
            "tags": odd.tags,
            "key": str(odd.key),
            "size": len(data),
            "digest": hashlib.sha256(data).hexdigest(),
        }
    )


def shown_row(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """A row that `COLUMNS` read, to be compared."""
    return _comparable(row)


def _comparable(row: Mapping[str, Any]) -> tuple[Any, ...]:
    parts = {**row, "price": Decimal(row["price"]).normalize(), "tags": sorted(row["tags"].items())}
    return ("oddity", row["number"], repr([parts[name] for name in Oddity.__struct_fields__]))


def _bits(value: float) -> int:
    (bits,) = struct.unpack("<Q", struct.pack("<d", value))
    return int(bits)
