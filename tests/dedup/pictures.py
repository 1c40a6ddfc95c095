"""Real pictures, of a package that the tests have anyway, and what is made of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

Pixels = np.ndarray[Any, Any]


def encoded(pixels: Pixels, kind: str = ".png", *options: int) -> bytes:
    """A file of pixels, BGR."""
    done, data = cv2.imencode(kind, pixels, list(options))
    assert done
    return bytes(data)


def photographs() -> list[Pixels]:
    """Two, RGB."""
    from sklearn.datasets import load_sample_images  # a second of a processor, of few processes

    found: list[Pixels] = load_sample_images().images
    return found


def tiles() -> Iterator[Pixels]:
    """Two photographs cut into 12 pictures that share no pixel."""
    for photo in photographs():
        height, width = photo.shape[0] // 2, photo.shape[1] // 3
        for n in range(6):
            y, x = n // 3 * height, n % 3 * width
            yield np.ascontiguousarray(photo[y : y + height, x : x + width, ::-1])


def copies(pixels: Pixels) -> dict[str, bytes]:
    """Duplicates of a picture, by how they are made."""
    height, width = pixels.shape[:2]
    y, x = round(height * 0.02), round(width * 0.02)
    quality = cv2.IMWRITE_JPEG_QUALITY
    moved = cv2.warpAffine(
        pixels, np.array([[1.0, 0, x], [0, 1, 0]]), (width, height), borderMode=cv2.BORDER_REPLICATE
    )
    return {
        "recompressed": encoded(pixels, ".jpg", quality, 60),
        "resized": encoded(cv2.resize(pixels, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)),
        "cropped": encoded(pixels[y // 2 : height - y // 2, x // 2 : width - x // 2]),
        "shifted": encoded(moved, ".jpg", quality, 90),
        "again": encoded(pixels),
    }
