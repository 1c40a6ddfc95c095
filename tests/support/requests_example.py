"""A stand-in for the model of `examples.requests`."""

from __future__ import annotations

from typing import Any

import numpy as np

NAMES = ("balloon", "lemon", "traffic light", "umbrella", "orange")


def lite0(image: Any) -> dict[str, Any]:
    """It knows what is on a picture by the middle of it, and is less sure where that is grey."""
    inner = image[84:140:4, 84:140:4]
    covered = float((inner == 127).all(axis=2).mean())
    probabilities = np.full(1000, 1e-4, np.float32)
    probabilities[[3, 1, 4, 15, 9]] = np.array([0.5, 0.25, 0.1, 0.05, 0.02]) * (1 - covered)
    best = np.array([3, 1, 4, 15, 9], np.int64)
    return {"probabilities": probabilities, "best": best, "names": np.array(NAMES, object)}
