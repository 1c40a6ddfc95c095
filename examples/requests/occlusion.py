"""Where a classifier looked: cover a patch of the picture, see how its guess suffers. Pure.

Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (ECCV 2014), section 4.2:
a grey square is moved over the picture, and the probability of the class is drawn as a function of
its place. Squares of several sizes, so that small things count as well as large ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SIZES = (56, 80, 112)
"""Sides of the squares, in pixels of the picture."""

PLACES = 11
"""Places of a square along each side of the picture."""

GRID = 28
"""Cells of the map along each side."""

_GREY = 127


def strips() -> Iterator[tuple[int, int]]:
    """What there is to do, a row of places at a time: the square's size, and which row."""
    for size in SIZES:
        for row in range(PLACES):
            yield size, row


def starts(side: int, size: int) -> list[int]:
    """The first pixel of each place of a square, so that the first and the last touch the edge."""
    return [round(place * (side - size) / (PLACES - 1)) for place in range(PLACES)]


def covered(picture: Array, size: int, row: int) -> Iterator[Array]:
    """Copies of a picture, with the square at each place of a row.

    Args:
        picture: uint8 `[side, side, 3]`.
        size: of the square.
        row: which, from 0.
    """
    begin = starts(len(picture), size)
    top = begin[row]
    for left in begin:
        copy = picture.copy()
        copy[top : top + size, left : left + size] = _GREY
        yield copy


def heat(falls: Iterable[tuple[int, int, list[float]]], side: int) -> list[list[float]]:
    """How much each cell of the picture matters: 0, nothing, to 1, the most.

    Args:
        falls: the size of a square, the row, and by how much the probability of the class fell
            with the square at each place of it; any order, and some may be missing.
        side: of the picture in pixels, a multiple of `GRID`.

    Returns:
        `GRID` rows of `GRID` values; a cell's is the mean over the squares that cover it.
    """
    total, times = np.zeros((side, side)), np.zeros((side, side))
    for size, row, amounts in falls:
        begin = starts(side, size)
        top = begin[row]
        for left, amount in zip(begin, amounts, strict=True):
            place = slice(top, top + size), slice(left, left + size)
            total[place] += max(amount, 0.0)
            times[place] += 1
    mean = total / np.maximum(times, 1)
    cells = mean.reshape(GRID, side // GRID, GRID, side // GRID).mean(axis=(1, 3))
    low, high = float(cells.min()), float(cells.max())
    scaled = (cells - low) / (high - low) if high > low else np.zeros_like(cells)
    return [[round(float(value), 3) for value in row] for row in scaled]
