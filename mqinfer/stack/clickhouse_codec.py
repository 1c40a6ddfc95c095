"""The body compressions of ClickHouse's HTTP interface."""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Callable

import lz4.frame  # type: ignore[import-untyped]

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


class CodecError(Exception):
    """A body is not what its Content-Encoding says."""


# In the order of preference among those a client accepts: the quickest first, as
# everything here stays on one machine.
_PREFERENCE = ("lz4", "zstd", "gzip", "deflate")


def decompress(body: bytes, encoding: str) -> bytes:
    """Undo the Content-Encoding of a request.

    Raises:
        CodecError: The encoding is unknown or the body is damaged.
    """
    match encoding.strip().lower():
        case "" | "identity":
            return body
        case "lz4":
            return _undo(_lz4, body, encoding)
        case "zstd":
            return _undo(zstd.decompress, body, encoding)
        case "gzip" | "x-gzip":
            return _undo(gzip.decompress, body, encoding)
        case "deflate":
            return _undo(_deflate, body, encoding)
        case _:
            raise CodecError(f"Unknown Content-Encoding {encoding!r}: use lz4, zstd or gzip.")


def _undo(function: Callable[[bytes], bytes], body: bytes, encoding: str) -> bytes:
    if not body:
        return b""
    try:
        return function(body)
    except (RuntimeError, EOFError, OSError, zlib.error, zstd.ZstdError) as error:
        raise CodecError(f"Cannot decompress the {encoding} body: {error}.") from error


def _lz4(body: bytes) -> bytes:
    """Undo every frame: clients send one frame a block, and none may be dropped."""
    parts = []
    while body:
        frame = lz4.frame.LZ4FrameDecompressor()
        parts.append(frame.decompress(body))
        if not frame.eof:
            raise EOFError("the last frame is cut off")
        body = frame.unused_data or b""
    return b"".join(parts)


def _deflate(body: bytes) -> bytes:
    stream = zlib.decompressobj()
    data = stream.decompress(body) + stream.flush()
    if not stream.eof or stream.unused_data:
        raise EOFError("the stream is cut off or something follows it")
    return data


def choose(accept_encoding: str) -> str:
    """Choose an encoding for the answer; empty for none."""
    accepted = {part.split(";")[0].strip().lower() for part in accept_encoding.split(",")}
    return next((name for name in _PREFERENCE if name in accepted), "")


def compress(data: bytes, encoding: str) -> bytes:
    """Encode an answer."""
    match encoding:
        case "lz4":
            return bytes(lz4.frame.compress(data))
        case "zstd":
            return bytes(zstd.compress(data, level=1))
        case "gzip":
            return gzip.compress(data, compresslevel=3)
        case _:
            return zlib.compress(data, level=3)
