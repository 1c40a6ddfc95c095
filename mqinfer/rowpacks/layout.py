"""Layout: what the bytes of a pack mean. Pure.

    1 byte    version of the layout
    4 bytes   rows in the pack, little endian
    4 bytes   length of what follows, up to the rows
    msgpack   [identities; rows of each lineage; {header: its value in each lineage}]
    rows      an array in the format that the message's Content-Type names

A lineage is what the rows of one input share: the headers that each of them would have as a message
of its own (ancestors, models, trace), "" where one has none. Rows stand in the order in which their
input led to them, and a row's bytes are those of its own message.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Annotated

import msgspec

from mqinfer.errors import DecodeError
from mqinfer.identity import safe_id
from mqinfer.message import Wire

VERSION = 1
ID_BYTES = 16  # of an identity of 32 hexadecimal digits
_START = struct.Struct("<BII")


class Lineages(msgspec.Struct, array_like=True):
    """Who the rows of a pack are.

    Attributes:
        ids: their identities: of 32 hexadecimal digits each, as outputs have, 16 bytes a row one
            behind the other; or texts.
        counts: rows of each lineage.
        headers: name -> the value in each lineage, "" where there is none.
    """

    ids: bytes | list[str]
    counts: list[Annotated[int, msgspec.Meta(ge=1)]]
    headers: dict[str, list[str]]

    def identities(self) -> list[str]:
        """Of each row."""
        if isinstance(self.ids, list):
            return [safe_id(one) for one in self.ids]
        text = self.ids.hex()
        return [text[at : at + 2 * ID_BYTES] for at in range(0, len(text), 2 * ID_BYTES)]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Lineages).decode


def write(lineages: Lineages, rows: Sequence[bytes], wire: Wire) -> bytes:
    """The payload of a pack.

    Args:
        lineages: of the rows.
        rows: each as its own message would carry it.
        wire: the format of them all.
    """
    head = _encode(lineages)
    start = _START.pack(VERSION, len(rows), len(head))
    if wire == "json":
        return b"%b%b[%b]" % (start, head, b",".join(rows))
    return b"".join((start, head, _array(len(rows)), *rows))


def _array(count: int) -> bytes:
    """How an array of so many begins in msgpack."""
    if count < 16:
        return bytes((0x90 | count,))
    return struct.pack(">BH", 0xDC, count) if count < 1 << 16 else struct.pack(">BI", 0xDD, count)


def count(data: bytes) -> int:
    """How many rows a pack says that it holds; 1 for what is none. Unchecked."""
    return max(1, int.from_bytes(data[1:5], "little"))


def read(data: bytes) -> tuple[Lineages, memoryview]:
    """The lineages of a pack, and the bytes of the array of its rows.

    Raises:
        DecodeError: it is no pack that this version can read; says why.
    """
    if len(data) < _START.size:
        raise DecodeError(f"the payload is no pack of rows: it has {len(data)} bytes")
    version, rows, size = _START.unpack_from(data)
    if version != VERSION:
        raise DecodeError(
            f"this pack of rows has layout {version}, and this version of mqinfer reads layout "
            f"{VERSION}: send it back (mqinfer dead retry) when a version that reads it runs"
        )
    if _START.size + size > len(data):
        raise DecodeError(f"the pack of rows was cut off: {len(data):,} bytes are left of it")
    view = memoryview(data)[_START.size :]
    try:
        lineages = _decode(view[:size])
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise DecodeError(f"the pack does not say whose its rows are: {error}") from None
    places, taken = len(lineages.counts), ID_BYTES if isinstance(lineages.ids, bytes) else 1
    if (
        not rows
        or len(lineages.ids) != rows * taken
        or sum(lineages.counts) != rows
        or any(len(values) != places for values in lineages.headers.values())
    ):
        raise DecodeError(
            f"the pack contradicts itself: it says {rows:,} rows of {places:,} inputs, and has "
            f"{len(lineages.ids) / taken:,g} identities"
        )
    return lineages, view[size:]
