"""What both sides of the inference benchmark do with a picture and with an answer."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
SIDE = 224
# A picture a core: threads within one picture would only get in each other's way.
cv2.setNumThreads(1)


def fit(pixels: Array) -> Array:
    """Shrink uint8 `[height, width, 3]` to `[224, 224, 3]`."""
    return cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def verdict(logits: Array) -> tuple[int, float]:
    """The class and its probability, of float32 `[1000]`."""
    best = int(logits.argmax())
    return best, float(1 / np.exp(logits - logits[best]).sum())
