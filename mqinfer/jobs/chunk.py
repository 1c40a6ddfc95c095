"""Chunk: some rows of a job as they wait in the blob store, a line of JSON each. Pure.

A row that is no message of the endpoint's type has its error in place of a payload.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec
from msgspec import Struct

from mqinfer.requests.state import Body

MOST: Final = 1_000  # rows of a chunk
FANS: Final = 50  # rows of one, where several messages may come of each
# Chunks are small at first, so that a short job can be told how far it is, and has its first
# results soon. Of a long one they become few: so many of a size, then twice as many rows.
FIRST: Final = 16
OF_A_SIZE: Final = 8
MOST_BYTES: Final = 8 * 1024 * 1024  # of the payloads of one chunk

Kind = Literal["invalid", "rejected", "internal", "canceled", "expired"]


class Failure(Struct, frozen=True, omit_defaults=True):
    """Why a row, or something that came of it, has no answer.

    Attributes:
        kind: "invalid": it is no message of its type; "rejected": a handler said so; "canceled",
            "expired": the job ended first; "internal": all else, which is nobody's outside.
        reason: in words that may leave.
        letter: the id of the dead letter, where that says more.
    """

    kind: Kind
    reason: str
    letter: str = ""


class Item(Struct, frozen=True, omit_defaults=True):
    """One row.

    Attributes:
        row: its number, from 1.
        custom_id: as whoever submitted it calls it.
        key: the last token of its message's subject, of a type that has a key.
        body: of its message.
        failure: why it is none.
    """

    row: int
    custom_id: str = ""
    key: str = ""
    body: Body | None = None
    failure: Failure | None = None


_encode = msgspec.json.Encoder()
_decode = msgspec.json.Decoder(Item).decode


def rows_of(number: int, most: int) -> int:
    """How many rows a chunk may have.

    Args:
        number: of the chunk, from 0.
        most: of any.
    """
    return min(most, FIRST << min(number // OF_A_SIZE, 30))


def encode(items: Iterable[Item]) -> bytes:
    """The lines of a chunk."""
    return _encode.encode_lines(items)


def decode(data: bytes) -> list[Item]:
    """The inverse of `encode`."""
    return [_decode(line) for line in data.splitlines() if line]
