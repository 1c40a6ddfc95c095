"""Pictures that nobody took: drawn here, so that they may be shown and committed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from mqinfer.image import encode_jpeg

Array = npt.NDArray[Any]
Colour = tuple[int, int, int]

_FINE = 4  # drawn so many times as large, then shrunk: smooth edges


def drawn(name: str, side: int = 640) -> bytes:
    """A drawing as a JPEG.

    Args:
        name: one of `DRAWINGS`.
        side: of the square, in pixels.
    """
    large = side * _FINE // 2
    picture = DRAWINGS[name](large)
    small: Array = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    return encode_jpeg(small)


def _sky(side: int) -> Array:
    """A sky that becomes paler towards a hilly ground."""
    rows = np.linspace(0, 1, side)[:, None, None]
    sky = (1 - rows) * np.array([72, 128, 200]) + rows * np.array([214, 232, 246])
    picture = np.repeat(sky, side, axis=1).astype(np.uint8)
    at = np.arange(side)
    for height, wave, colour in ((0.86, 3.1, (104, 140, 96)), (0.92, 5.3, (66, 104, 62))):
        edge = (height + 0.03 * np.sin(wave * at / side * np.pi)) * side
        picture[np.arange(side)[:, None] > edge[None, :]] = colour
    return np.ascontiguousarray(picture)


def _shaded(picture: Array, mask: Array, light: tuple[float, float]) -> Array:
    """What is inside the mask, lit from one side."""
    side = len(picture)
    y, x = np.mgrid[0:side, 0:side] / side
    shade = 1.25 - 1.1 * np.hypot(x - light[0], y - light[1])
    lit = np.clip(picture * shade[..., None], 0, 255).astype(np.uint8)
    return np.where(mask[..., None] > 0, lit, picture)


def _balloon(side: int) -> Array:
    """A hot-air balloon over hills."""
    picture = _sky(side)
    centre, radius = np.array([side * 0.5, side * 0.36]), side * 0.27
    turn = np.linspace(0, np.pi, 60)
    mask: Array = np.zeros((side, side), np.uint8)
    colours = ((196, 52, 46), (240, 190, 60), (38, 92, 160), (240, 190, 60))
    gores = 12
    for gore in range(gores):
        # Each gore between two meridians; below the middle they run together to the mouth.
        edges = []
        for meridian in (gore, gore + 1):
            across = np.cos(np.pi * (1 - meridian / gores))
            y = centre[1] - radius * np.cos(turn)
            wide = np.sin(turn)
            low = turn > np.pi / 2
            t = (turn[low] - np.pi / 2) / (np.pi / 2)
            wide[low] = 1 - 0.8 * t**1.6
            y[low] = centre[1] + radius * 1.25 * t
            edges.append(np.stack([centre[0] + radius * across * wide, y], axis=1))
        shape = np.concatenate([edges[0], edges[1][::-1]]).astype(np.int32)
        cv2.fillPoly(picture, [shape], colours[gore % len(colours)], cv2.LINE_AA)
        cv2.fillPoly(mask, [shape], (255,))
    picture = _shaded(picture, mask, (0.38, 0.22))
    mouth, basket = centre[1] + radius * 1.25, side * 0.80
    half, wide = side * 0.035, radius * 0.2
    for sign in (-1, 1):
        start = (int(centre[0] + sign * wide), int(mouth))
        end = (int(centre[0] + sign * half), int(basket))
        cv2.line(picture, start, end, (70, 60, 50), max(1, side // 300), cv2.LINE_AA)
    corner = (int(centre[0] - half), int(basket)), (int(centre[0] + half), int(basket + 1.6 * half))
    cv2.rectangle(picture, *corner, (120, 80, 44), -1)
    cv2.rectangle(picture, *corner, (80, 52, 28), max(2, side // 160))
    return picture


def _lights(side: int) -> Array:
    """A traffic light on its pole."""
    picture = _sky(side)
    middle, wide = side // 2, int(side * 0.13)
    top, bottom = int(side * 0.12), int(side * 0.70)
    cv2.rectangle(
        picture, (middle - wide // 5, bottom), (middle + wide // 5, side), (70, 74, 78), -1
    )
    cv2.rectangle(picture, (middle - wide, top), (middle + wide, bottom), (34, 36, 38), -1)
    cv2.rectangle(picture, (middle - wide, top), (middle + wide, bottom), (14, 15, 16), side // 120)
    for number, colour in enumerate(((228, 40, 32), (74, 62, 20), (24, 62, 34))):
        at = (middle, int(top + (bottom - top) * (2 * number + 1) / 6))
        cv2.circle(picture, at, int(wide * 0.74), (18, 19, 20), -1, cv2.LINE_AA)
        cv2.circle(picture, at, int(wide * 0.62), colour, -1, cv2.LINE_AA)
        glint = (at[0] - wide // 5, at[1] - wide // 5)
        lighter = tuple(min(255, part + 60) for part in colour)
        cv2.circle(picture, glint, int(wide * 0.18), lighter, -1, cv2.LINE_AA)
    return picture


def _clock(side: int) -> Array:
    """A clock on a wall."""
    rows = np.linspace(0, 1, side)[:, None, None]
    wall = (1 - rows) * np.array([206, 196, 180]) + rows * np.array([168, 156, 142])
    picture = np.ascontiguousarray(np.repeat(wall, side, axis=1).astype(np.uint8))
    at, radius = np.array([side * 0.5, side * 0.48]), side * 0.34
    centre = (int(at[0]), int(at[1]))

    def hand(hours: float, start: float, end: float, width: float, colour: Colour) -> None:
        way = np.array([np.sin(hours * np.pi / 6), -np.cos(hours * np.pi / 6)])
        first, last = ((at + way * radius * far).astype(int) for far in (start, end))
        ends = (int(first[0]), int(first[1])), (int(last[0]), int(last[1]))
        cv2.line(picture, *ends, colour, max(1, int(side * width)), cv2.LINE_AA)

    below = (int(at[0] + side * 0.02), int(at[1] + side * 0.03))
    cv2.circle(picture, below, int(radius * 1.10), (128, 118, 106), -1, cv2.LINE_AA)
    cv2.circle(picture, centre, int(radius * 1.12), (42, 40, 40), -1, cv2.LINE_AA)
    cv2.circle(picture, centre, int(radius), (248, 246, 240), -1, cv2.LINE_AA)
    for minute in range(60):
        large = minute % 5 == 0
        hand(minute / 5, 0.82 if large else 0.90, 0.95, 0.010 if large else 0.004, (30, 30, 32))
    hand(10.15, -0.10, 0.52, 0.022, (30, 30, 32))
    hand(1.8, -0.12, 0.78, 0.014, (30, 30, 32))
    hand(6.6, -0.20, 0.84, 0.006, (188, 40, 36))
    cv2.circle(picture, centre, int(side * 0.016), (188, 40, 36), -1, cv2.LINE_AA)
    return picture


DRAWINGS: dict[str, Callable[[int], Array]] = {
    "balloon": _balloon,
    "traffic light": _lights,
    "clock": _clock,
}
