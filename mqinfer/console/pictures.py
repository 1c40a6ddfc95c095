"""Pictures: what is stored as one, decoded here and drawn anew, smaller.

The bytes that somebody stored never reach a browser: what it gets is a JPEG of our own making, so
that no file can be a picture to one program and a page to another.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from mqinfer import image
from mqinfer.blob import Blob

if TYPE_CHECKING:
    from mqinfer.blob import BlobStore

LARGEST: Final = 20_000_000  # bytes of a file that is shown
_SIDES: Final = (32, 1600)


async def stored(store: BlobStore, path: str, side: int) -> bytes:
    """A picture in the blob store; errors as of `drawn`, and `BlobError`."""
    content = await Blob.at(path).bind(store).bytes(max_bytes=LARGEST)
    return await drawn(content, side)


async def drawn(content: bytes, side: int) -> bytes:
    """A picture as a JPEG.

    Args:
        content: of the file.
        side: pixels that its longer side has at most.

    Raises:
        BadImage: it is none that can be shown.
    """
    side = min(max(side, _SIDES[0]), _SIDES[1])
    pixels = await image.decode_off_loop(content, target=side)
    return await asyncio.to_thread(_smaller, pixels, side)


def _smaller(pixels: Any, side: int) -> bytes:
    import cv2

    height, width = pixels.shape[:2]
    share = side / max(height, width)
    if share < 1:
        size = max(1, round(width * share)), max(1, round(height * share))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return image.encode_jpeg(pixels, quality=85)


def answer(content: bytes) -> Response:
    """A JPEG of ours as an answer, kept for a minute: another may come to be at its path."""
    headers = {
        "cache-control": "private, max-age=60",
        "content-security-policy": "default-src 'none'; sandbox",
    }
    return Response(content, media_type="image/jpeg", headers=headers)
