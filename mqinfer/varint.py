"""Numbers as protobuf and ClickHouse write them: seven bits a byte, the lowest first (LEB128)."""

from __future__ import annotations


def write(number: int) -> bytes:
    """The bytes of a number that is not negative."""
    out = bytearray()
    while number > 0x7F:
        out.append((number & 0x7F) | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """The number that begins at a place, and where it ends.

    Raises:
        IndexError: the bytes end in the middle of it.
    """
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
