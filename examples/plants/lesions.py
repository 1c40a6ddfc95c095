"""Five diseases painted on a leaf; the part of the leaf that each covers decides its grade.

The lesions of different diseases never cover each other, so what is painted is what is seen, and
the grade is counted from the painted pixels, not from what was asked for.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from examples.plants.leaves import SPRITE, Leaf, noise

Array = npt.NDArray[Any]

DISEASES = ("rust", "blight", "mildew", "spot", "mosaic")
GRADES = 4

BANDS: dict[str, tuple[tuple[float, float], ...]] = {
    # Part of the leaf that is painted for the grades 0 to 3. Between the bands nothing is
    # painted, so a grade is never a matter of one pixel.
    "rust": ((0.0, 0.0), (0.012, 0.025), (0.045, 0.07), (0.11, 0.16)),
    "blight": ((0.0, 0.0), (0.045, 0.08), (0.14, 0.19), (0.28, 0.38)),
    "mildew": ((0.0, 0.0), (0.045, 0.08), (0.14, 0.19), (0.28, 0.38)),
    "spot": ((0.0, 0.0), (0.02, 0.04), (0.07, 0.105), (0.15, 0.21)),
    "mosaic": ((0.0, 0.0), (0.045, 0.08), (0.14, 0.19), (0.28, 0.38)),
}
MOST_PAINTED = 0.62
"""No more of a leaf than this is painted; beyond it the largest lesions are made smaller."""

_ORDER = ("blight", "mildew", "mosaic", "spot", "rust")  # large ones first, small between them


def grade_of(disease: str, fraction: float) -> int:
    """Return the grade, 0 to 3, of a disease that covers this part of a leaf."""
    bands = BANDS[disease]
    limits = [(low[1] + high[0]) / 2 for low, high in itertools.pairwise(bands)]
    return sum(fraction > limit for limit in limits)


def fits_a_band(disease: str, fraction: float) -> bool:
    """Say whether a painted part is one that a grade has, and none between two grades."""
    return any(low <= fraction <= high for low, high in BANDS[disease])


def paint(
    leaf: Leaf, seed: int, severities: Mapping[str, float]
) -> tuple[Array, Array, dict[str, float]]:
    """Paint the lesions of a leaf.

    The same seed puts lesions at the same places: a lower severity shows fewer or smaller ones.

    Args:
        leaf: The healthy leaf.
        seed: Where the lesions are and how they look.
        severities: Of each disease, 0 (none) up to 1; a quarter of the range is a grade.

    Returns:
        The picture float32 [144, 144, 3] RGB; a map uint8 [144, 144] with, at each pixel, 0 or
        1 + the index of the disease painted there; and the part of the leaf each disease covers.
    """
    inside = leaf.alpha > 0.5
    area = int(inside.sum())
    wanted = _fractions(severities)
    rgb = leaf.rgb.copy()
    labels = np.zeros((SPRITE, SPRITE), np.uint8)
    free = cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8))
    for disease in _ORDER:
        if wanted[disease] <= 0:
            continue
        index = DISEASES.index(disease)
        rng = np.random.default_rng([seed, index])
        if disease in ("rust", "spot"):
            chosen = _discs(rng, rgb, free, area, wanted[disease], disease)
        else:
            chosen = _patches(rng, rgb, free, area, wanted[disease], disease)
        labels[chosen] = index + 1
        blocked = cv2.dilate(chosen.astype(np.uint8), np.ones((3, 3), np.uint8))
        free[blocked > 0] = 0
    counts = np.bincount(labels.ravel(), minlength=len(DISEASES) + 1)
    painted = {name: counts[i + 1] / area for i, name in enumerate(DISEASES)}
    return np.clip(rgb, 0, 255), labels, painted


def _fractions(severities: Mapping[str, float]) -> dict[str, float]:
    """Turn severities into parts of the leaf, inside the bands and not too many at once."""
    grade = {}
    within = {}
    for disease in DISEASES:
        scaled = float(np.clip(severities.get(disease, 0.0), 0, 0.999)) * GRADES
        grade[disease], within[disease] = int(scaled), scaled % 1

    def part(disease: str) -> float:
        low, high = BANDS[disease][grade[disease]]
        return low + (high - low) * (0.1 + 0.8 * within[disease])

    while sum(map(part, DISEASES)) > MOST_PAINTED:
        grade[max(DISEASES, key=part)] -= 1
    return {disease: part(disease) if grade[disease] else 0.0 for disease in DISEASES}


def _patches(
    rng: np.random.Generator, rgb: Array, free: Array, area: int, part: float, disease: str
) -> Array:
    """Paint the part of the free leaf where a noise is highest; return where it is."""
    if disease == "blight":
        field = noise(rng, 5, SPRITE) + 0.35 * noise(rng, 20, SPRITE)
    elif disease == "mildew":
        field = noise(rng, 8, SPRITE) + 0.25 * noise(rng, 48, SPRITE)
    else:
        field = noise(rng, 14, SPRITE) + 0.2 * noise(rng, 40, SPRITE)
    values = field[free > 0]
    # Where other lesions leave too little room, a lower grade is painted, never one in between.
    tops = [high for _, high in BANDS[disease]]
    room = values.size / area
    part = part if part <= room else max(min(top, room) for top in tops if top <= room)
    count = int(part * area)
    if count == 0:
        return np.zeros(free.shape, bool)
    limit = np.partition(values, values.size - count)[values.size - count]
    chosen: Array = (field >= limit) & (free > 0)
    fine = noise(rng, 72, SPRITE)[..., None]
    if disease == "blight":
        near = cv2.GaussianBlur(chosen.astype(np.float32), (0, 0), 2.0)
        halo = np.clip(near * 1.6, 0, 1)[..., None] * 0.55
        rgb[:] = rgb * (1 - halo) + np.array([190, 170, 60], np.float32) * halo
        colour = np.array([112, 74, 42], np.float32) * np.float32(rng.uniform(0.75, 1.2))
        rgb[chosen] = (colour * (1 + 0.16 * fine))[chosen]
    elif disease == "mildew":
        colour = np.array([226, 228, 220], np.float32) * np.float32(rng.uniform(0.92, 1.05))
        dense = np.clip(0.8 + 0.12 * fine, 0.55, 0.95)
        rgb[chosen] = (rgb * (1 - dense) + colour * dense)[chosen]
    else:
        colour = np.array([206, 212, 62], np.float32) * np.float32(rng.uniform(0.9, 1.08))
        light = rgb.mean(2, keepdims=True) / max(1.0, float(rgb[free > 0].mean()))
        rgb[chosen] = (0.22 * rgb + 0.78 * colour * np.clip(light, 0.75, 1.2))[chosen]
    return chosen


def _discs(
    rng: np.random.Generator, rgb: Array, free: Array, area: int, part: float, disease: str
) -> Array:
    """Paint round lesions one by one until they cover the part; return where they are."""
    low, high = (0.02, 0.03) if disease == "rust" else (0.042, 0.062)
    unit = float(np.sqrt(area))
    # Centres are drawn anywhere, so that the order of the lesions does not depend on the others.
    centres = rng.integers(0, SPRITE, (1600, 2))
    sizes = rng.uniform(low, high, 1600) * unit
    tints = rng.uniform(0.85, 1.15, 1600)
    room = cv2.distanceTransform(free, cv2.DIST_L2, 3)
    fits = np.flatnonzero(room[centres[:, 1], centres[:, 0]] > sizes * 0.9)
    taken = np.zeros(free.shape, np.uint8)
    covered, wanted = 0.0, part * area
    shown = []
    for i in fits:
        size = float(sizes[i])
        if covered + 0.5 * np.pi * size * size > wanted:
            break
        x, y = int(centres[i, 0]), int(centres[i, 1])
        reach = int(size + 1.5)
        if taken[y - reach : y + reach + 1, x - reach : x + reach + 1].any():
            continue
        cv2.circle(taken, (x * 16, y * 16), int(size * 16), (255,), cv2.FILLED, shift=4)
        covered += np.pi * size * size
        shown.append((x, y, size, float(tints[i])))
    while shown and not fits_a_band(disease, float(((taken > 0) & (free > 0)).sum()) / area):
        x, y, size, _ = shown.pop()
        cv2.circle(taken, (x * 16, y * 16), int((size + 1) * 16), (0,), cv2.FILLED, shift=4)
    base = (200, 96, 24) if disease == "rust" else (58, 38, 28)
    for x, y, size, tint in shown:
        colour = tuple(component * tint for component in base)
        at = (x * 16, y * 16)
        if disease == "rust":
            cv2.circle(rgb, at, int(size * 16), colour, cv2.FILLED, cv2.LINE_AA, 4)
        else:
            ring = (150 * tint, 140 * tint, 70)
            cv2.circle(rgb, at, int((size + 0.8) * 16), ring, cv2.FILLED, cv2.LINE_AA, 4)
            cv2.circle(rgb, at, int(size * 16), colour, cv2.FILLED, cv2.LINE_AA, 4)
            pale = (196 * tint, 182 * tint, 156 * tint)
            cv2.circle(rgb, at, int(size * 0.42 * 16), pale, cv2.FILLED, cv2.LINE_AA, 4)
    covered_pixels: Array = (taken > 0) & (free > 0)
    return covered_pixels
