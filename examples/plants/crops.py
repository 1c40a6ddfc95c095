"""How a photograph is fitted to the detector and how a leaf is cut for the graders.

Training, evaluation and the stages all use these functions: a model is only as good as the
agreement on its input.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

PHOTO_HEIGHT = 480
PHOTO_WIDTH = 640
CROP_SIZE = 96
CROP_MARGIN = 0.06
"""Part of the longer side of a box that is added around it."""
SCORE_THRESHOLD = 0.4
"""Boxes of `leaf_detector` version 1 with a lower score are no leaves."""
_GREY = 114


class Fit(NamedTuple):
    """How a photograph was put into the detector's frame.

    Attributes:
        scale: Frame pixels per photograph pixel.
        left: Columns of grey to the left of the photograph, in frame pixels.
        top: Rows of grey above it, in frame pixels.
    """

    scale: float
    left: float
    top: float


def fit_photo(photo: Array) -> tuple[Array, Fit]:
    """Scale a photograph into the detector's frame, keeping its aspect ratio.

    Args:
        photo: uint8 [h, w, 3] RGB of any size.

    Returns:
        The frame, uint8 [480, 640, 3] RGB with grey where the photograph does not reach, and how
        it was fitted. A photograph of that very size is returned as it is.
    """
    height, width = photo.shape[:2]
    if (height, width) == (PHOTO_HEIGHT, PHOTO_WIDTH):
        return photo, Fit(1.0, 0.0, 0.0)
    scale = min(PHOTO_WIDTH / width, PHOTO_HEIGHT / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shrunk = cv2.resize(photo, size, interpolation=_interpolation(scale))
    frame = np.full((PHOTO_HEIGHT, PHOTO_WIDTH, 3), _GREY, np.uint8)
    left, top = (PHOTO_WIDTH - size[0]) // 2, (PHOTO_HEIGHT - size[1]) // 2
    frame[top : top + size[1], left : left + size[0]] = shrunk
    return frame, Fit(scale, float(left), float(top))


def unfit_boxes(boxes: Array, fit: Fit, photo_shape: tuple[int, ...]) -> Array:
    """Turn the detector's boxes into pixels of the photograph, kept inside of it.

    Args:
        boxes: float32 [n, 4], x0, y0, x1, y1 in pixels of the frame.
        fit: What `fit_photo` returned with the frame.
        photo_shape: Shape of the photograph, height first.

    Returns:
        float32 [n, 4], x0, y0, x1, y1 in pixels of the photograph.
    """
    offset = np.array([fit.left, fit.top, fit.left, fit.top], np.float32)
    height, width = photo_shape[:2]
    limits = np.array([width, height, width, height], np.float32)
    found: Array = np.clip((boxes.astype(np.float32) - offset) / np.float32(fit.scale), 0, limits)
    return found


def crop_leaf(photo: Array, box: Array | tuple[float, ...] | list[float]) -> Array:
    """Cut one leaf out of a photograph, as the graders expect it.

    The box grows by a small margin on every side; the part of the photograph below it is scaled,
    keeping its aspect ratio, to the middle of a square. What the square has besides, and what
    lies outside the photograph, is grey.

    Args:
        photo: uint8 [h, w, 3] RGB.
        box: x0, y0, x1, y1 in pixels of the photograph.

    Returns:
        uint8 [96, 96, 3] RGB.
    """
    square = np.full((CROP_SIZE, CROP_SIZE, 3), _GREY, np.uint8)
    place_crop(photo, box, square)
    return square


def place_crop(source: Array, box: Array | tuple[float, ...] | list[float], square: Array) -> None:
    """Scale the surroundings of a box into the middle of a square, as `crop_leaf` does.

    Args:
        source: [h, w, c], a photograph or maps of the same place.
        box: x0, y0, x1, y1 in pixels of the source.
        square: [s, s, c] of the same type; written in place. Nothing is written for an empty box.
    """
    x0, y0, x1, y1 = (float(value) for value in box)
    margin = CROP_MARGIN * max(x1 - x0, y1 - y0)
    height, width = source.shape[:2]
    left, top = max(0, round(x0 - margin)), max(0, round(y0 - margin))
    right, bottom = min(width, round(x1 + margin)), min(height, round(y1 + margin))
    if right <= left or bottom <= top:
        return
    side = square.shape[0]
    scale = side / max(right - left, bottom - top)
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    shrunk = cv2.resize(source[top:bottom, left:right], size, interpolation=_interpolation(scale))
    dx, dy = (side - size[0]) // 2, (side - size[1]) // 2
    square[dy : dy + size[1], dx : dx + size[0]] = shrunk


def _interpolation(scale: float) -> int:
    return cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
