"""Looks: what a picture is known by: its bytes, a perceptual hash, a vector. Pure.

The hash is a pHash: of a discrete cosine transform of 32 x 32 grey pixels, which of the 64 lowest
frequencies are above their median. The lowest by u^2 + v^2, and not the usual square of 8 x 8: of
photographs shifted by 2 %, 46 % rather than 16 % stay within 6 bits. A picture that shows nothing,
as one of a single color, has none: what would be hashed is rounding, alike for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mqinfer.errors import BadImage
from mqinfer.image import decode
from mqinfer.message import Message

if TYPE_CHECKING:
    from numpy.typing import NDArray

BITS: Final = 64
_SIDE = 32  # pixels that are transformed
_FLAT = 1.0  # grey values that a picture's must vary by (standard deviation), to show something


class Fingerprint(Message, wire="msgpack"):
    """What a picture is known by; `fingerprint` makes it, and a stage of yours returns it.

    Attributes:
        picture: your name for it, one for each time that it was given.
        order: its place among all: what has a lower one is earlier. `ctx.sequence` of the stage
            that reads the pictures themselves is the same whenever they are handled or replayed.
        content: SHA-256 of its file, 64 hexadecimal digits.
        looks: its perceptual hash, 64 bits as 16 hexadecimal digits; "" where there is none.
        vector: float16, little-endian, of length 1; empty where no model was asked.
    """

    picture: str
    order: int
    content: str
    looks: str = ""
    vector: bytes = b""


def fingerprint(
    data: bytes, *, picture: str, order: int, vector: Sequence[float] | NDArray[Any] | None = None
) -> Fingerprint:
    """What a picture is known by; takes a thread's time (about that of decoding it).

    Args:
        data: its file.
        picture: your name for it.
        order: its place among all, usually `ctx.sequence`.
        vector: what an embedding model said of it, of any length; None where none was asked.

    Raises:
        BadImage: it cannot be decoded, or its vector holds no direction (NaN, infinite or zero).
    """
    return Fingerprint(
        picture=picture,
        order=order,
        content=sha256(data).hexdigest(),
        looks=perceptual(decode(data, name=picture, size=(_SIDE, _SIDE))),
        vector=b"" if vector is None else _packed(np.asarray(vector, np.float64), picture),
    )


def perceptual(pixels: NDArray[np.uint8]) -> str:
    """The hash of pixels `[32, 32, 3]` (RGB), as 16 hexadecimal digits; "" if they show nothing."""
    import cv2

    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    if float(grey.std()) < _FLAT:
        return ""
    low = cv2.dct(grey)[_lowest()]
    return np.packbits(low > np.median(low)).tobytes().hex()


@cache
def _lowest() -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where the lowest frequencies stand, the mean (u = v = 0) left out."""
    u, v = np.divmod(np.arange(1, _SIDE * _SIDE), _SIDE)
    chosen = np.argsort(u * u + v * v, kind="stable")[:BITS]
    return u[chosen], v[chosen]


def cosine_distance(one: bytes, other: bytes) -> float | None:
    """1 - cosine of two packed vectors, 0 (alike) to 2; None where they cannot be compared."""
    if not one or len(one) != len(other):
        return None
    vectors = [np.frombuffer(each, "<f2").astype(np.float64) for each in (one, other)]
    norms = float(np.linalg.norm(vectors[0]) * np.linalg.norm(vectors[1]))
    return 1.0 - float(vectors[0] @ vectors[1]) / norms


def _packed(vector: NDArray[np.float64], picture: str) -> bytes:
    largest = float(np.abs(vector).max(initial=0.0))
    if vector.ndim != 1 or not np.isfinite(largest) or largest == 0.0:
        raise BadImage(f"the vector of picture {picture} must be numbers, not all of them 0")
    vector = vector / largest  # whose squares neither overflow nor vanish
    return (vector / np.linalg.norm(vector)).astype("<f2").tobytes()
