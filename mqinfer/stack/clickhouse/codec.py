"""Compressed bodies of ClickHouse's HTTP interface, piece by piece in both directions.

Content-Encoding is HTTP's own. `compress=1` and `decompress=1` are ClickHouse's: frames of a
checksum, the method, two sizes and the data, as between its servers (JDBC, Go and Rust ask for it).
"""

from __future__ import annotations

import bz2
import lzma
import struct
import sys
import zlib
from collections.abc import Callable
from typing import Any, Protocol

import brotli
import lz4.block  # type: ignore[import-untyped]
import lz4.frame  # type: ignore[import-untyped]
from clickhouse_cityhash.cityhash import CityHash128

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_ERRORS = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    zlib.error,
    zstd.ZstdError,
    lzma.LZMAError,
    brotli.error,
)


class CodecError(Exception):
    """A body is not what its encoding says."""


class Decoder(Protocol):
    """Undoes one encoding."""

    def feed(self, data: bytes) -> bytes:
        """Take the next piece; raises CodecError."""
        ...

    def finish(self) -> None:
        """Check that nothing is missing; raises CodecError."""
        ...


class Encoder(Protocol):
    """Applies one encoding."""

    def compress(self, data: bytes) -> bytes:
        """Take the next piece."""
        ...

    def flush(self) -> bytes:
        """Give what is left."""
        ...


class _BrotliDecompressor:
    """Brotli in the shape of the standard library's decompressors."""

    unused_data = b""

    def __init__(self) -> None:
        self._inner = brotli.Decompressor()

    def decompress(self, data: bytes) -> bytes:
        return bytes(self._inner.process(data))

    @property
    def eof(self) -> bool:
        return bool(self._inner.is_finished())


class _BrotliCompressor:
    def __init__(self) -> None:
        self._inner = brotli.Compressor(quality=1)

    def compress(self, data: bytes) -> bytes:
        return bytes(self._inner.process(data))

    def flush(self) -> bytes:
        return bytes(self._inner.finish())


class _Lz4Compressor:
    def __init__(self) -> None:
        self._inner = lz4.frame.LZ4FrameCompressor()
        self._begun = False

    def compress(self, data: bytes) -> bytes:
        head = b"" if self._begun else self._inner.begin()
        self._begun = True
        return bytes(head + self._inner.compress(data))

    def flush(self) -> bytes:
        return self.compress(b"") + bytes(self._inner.flush())


_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "lz4": lz4.frame.LZ4FrameDecompressor,
    "zstd": zstd.ZstdDecompressor,
    "gzip": lambda: zlib.decompressobj(31),
    "x-gzip": lambda: zlib.decompressobj(31),
    "deflate": zlib.decompressobj,
    "br": _BrotliDecompressor,
    "xz": lzma.LZMADecompressor,
    "bz2": bz2.BZ2Decompressor,
}
# In the order of preference among those a client accepts: the quickest first, as
# everything here stays on one machine.
_COMPRESSORS: dict[str, Callable[[], Any]] = {
    "lz4": _Lz4Compressor,
    "zstd": lambda: zstd.ZstdCompressor(level=1),
    "gzip": lambda: zlib.compressobj(1, wbits=31),
    "deflate": lambda: zlib.compressobj(1),
    "br": _BrotliCompressor,
    "xz": lambda: lzma.LZMACompressor(preset=0),
    "bz2": lambda: bz2.BZ2Compressor(1),
}


class _HttpDecoder:
    """Undoes every frame: clients send one frame a block, and none may be dropped."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._frame: Any = None

    def feed(self, data: bytes) -> bytes:
        parts = []
        try:
            while data:
                if self._frame is None or self._frame.eof:
                    self._frame = _DECOMPRESSORS[self._encoding]()
                parts.append(self._frame.decompress(data))
                data = (self._frame.unused_data or b"") if self._frame.eof else b""
        except _ERRORS as error:
            raise CodecError(f"Cannot decompress the {self._encoding} body: {error}.") from error
        return b"".join(parts)

    def finish(self) -> None:
        if self._frame is not None and not self._frame.eof:
            raise CodecError(f"Cannot decompress the {self._encoding} body: it is cut off.")


_LZ4, _ZSTD, _NONE = 0x82, 0x90, 0x02
_HEADER = struct.Struct("<BII")  # the method, the size with this header, the size of the data
_CHECKSUM = 16
_LARGEST_FRAME = 1 << 30


def _checksum(frame: bytes) -> bytes:
    number = CityHash128(frame)
    return struct.pack("<QQ", number >> 64, number & 0xFFFFFFFFFFFFFFFF)


class FrameDecoder:
    """Undoes ClickHouse's own frames.

    Args:
        checked: Whether a frame with a wrong checksum is refused.
    """

    def __init__(self, *, checked: bool = True) -> None:
        self._checked = checked
        self._waiting = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Take the next piece; gives what the frames that are whole now held."""
        self._waiting += data
        parts = []
        while len(self._waiting) >= _CHECKSUM + _HEADER.size:
            method, size, plain_size = _HEADER.unpack_from(self._waiting, _CHECKSUM)
            if not _HEADER.size <= size <= _LARGEST_FRAME or plain_size > _LARGEST_FRAME:
                raise CodecError("This is no ClickHouse frame: its sizes are impossible.")
            if len(self._waiting) < _CHECKSUM + size:
                break
            checksum = bytes(self._waiting[:_CHECKSUM])
            frame = bytes(self._waiting[_CHECKSUM : _CHECKSUM + size])
            del self._waiting[: _CHECKSUM + size]
            if self._checked and _checksum(frame) != checksum:
                raise CodecError("Checksum doesn't match: corrupted data.")
            parts.append(self._open(method, frame[_HEADER.size :], plain_size))
        return b"".join(parts)

    def finish(self) -> None:
        """Check that no frame is cut off."""
        if self._waiting:
            raise CodecError("The last ClickHouse frame is cut off.")

    @staticmethod
    def _open(method: int, data: bytes, plain_size: int) -> bytes:
        try:
            match method:
                case 0x82:
                    plain = bytes(lz4.block.decompress(data, uncompressed_size=plain_size))
                case 0x90:
                    plain = bytes(zstd.decompress(data))
                case 0x02:
                    plain = data
                case _:
                    raise CodecError(
                        f"Frames of method {method:#x} are not known: use LZ4 or ZSTD."
                    )
        except _ERRORS as error:
            raise CodecError(f"Cannot decompress a ClickHouse frame: {error}.") from error
        if len(plain) != plain_size:
            raise CodecError("Cannot decompress a ClickHouse frame: it is not of the size it says.")
        return plain


class FrameEncoder:
    """Writes ClickHouse's own frames, by LZ4, which every client reads; one for each piece."""

    def compress(self, data: bytes) -> bytes:
        """Write one frame."""
        if not data:
            return b""
        packed = lz4.block.compress(data, store_size=False)
        frame = _HEADER.pack(_LZ4, _HEADER.size + len(packed), len(data)) + packed
        return bytes(_checksum(frame) + frame)

    def flush(self) -> bytes:
        """Nothing is ever left."""
        return b""


def decoder(encoding: str) -> Decoder | None:
    """What undoes the Content-Encoding of a request; None for none.

    Raises:
        CodecError: The encoding is unknown.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return None
    if encoding not in _DECOMPRESSORS:
        raise CodecError(f"Unknown Content-Encoding {encoding!r}: use {', '.join(_COMPRESSORS)}.")
    return _HttpDecoder(encoding)


def choose(accept_encoding: str) -> str:
    """Choose an encoding for the answer; empty for none."""
    accepted = {part.split(";")[0].strip().lower() for part in accept_encoding.split(",")}
    return next((name for name in _COMPRESSORS if name in accepted), "")


def encoder(encoding: str) -> Encoder:
    """What applies an encoding that `choose` gave."""
    made: Encoder = _COMPRESSORS[encoding]()
    return made
