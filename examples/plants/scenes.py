"""Drone photographs of leaves, composed with exact ground truth.

Everything follows from a seed: the same seed and materials make the same pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from examples.plants.crops import PHOTO_HEIGHT, PHOTO_WIDTH
from examples.plants.leaves import SPRITE, make_leaf, noise
from examples.plants.lesions import DISEASES, grade_of, paint
from examples.plants.materials import DEFAULT_CACHE, Materials, Split, ensure_materials

Array = npt.NDArray[Any]

MAX_LEAVES = 20

_EDGE = 14  # pixels that a leaf keeps from the picture's edge, more than a day's jitter
_LEAVES_KEPT = 2048


@dataclass(frozen=True)
class LeafTruth:
    """What is true of one leaf on a photograph.

    Attributes:
        box: x0, y0, x1, y1 in pixels; x1 and y1 are exclusive.
        grades: Of each disease, 0 (healthy) to 3.
        fractions: Of each disease, the part of the leaf its lesions cover, 0..1.
    """

    box: tuple[float, float, float, float]
    grades: dict[str, int]
    fractions: dict[str, float]


@dataclass(frozen=True)
class Placed:
    """One leaf of a layout: which it is, where it lies and how ill it is.

    Attributes:
        seed: Makes the leaf and the places of its lesions.
        x: Centre, pixels from the left.
        y: Centre, pixels from the top.
        angle: Turn in radians.
        scale: Photograph pixels per pixel of the leaf's own picture.
        severities: Of each disease, 0 up to 1.
    """

    seed: int
    x: float
    y: float
    angle: float
    scale: float
    severities: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Scene:
    """A photograph and what is on it.

    Attributes:
        photo: uint8 [480, 640, 3] RGB.
        leaves: The truth about every leaf.
        instances: uint8 [480, 640], at each pixel 0 or 1 + the index of the leaf seen there.
        lesions: uint8 [480, 640], at each pixel 0 or 1 + the index in `DISEASES` seen there.
    """

    photo: Array
    leaves: tuple[LeafTruth, ...]
    instances: Array
    lesions: Array


def scene(seed: int, split: Split = "train", materials: Materials | None = None) -> Scene:
    """Compose one photograph of random leaves with random diseases.

    Args:
        seed: Any non-negative integer.
        split: Which leaves and backgrounds to use.
        materials: What `ensure_materials` returned; by default those of the default cache.
    """
    materials = materials or ensure_materials(DEFAULT_CACHE)
    rng = np.random.default_rng([seed, 77, split == "test"])
    count = int(rng.integers(0, MAX_LEAVES + 1))
    placed = []
    for leaf_seed, x, y, angle, scale in layout(rng, count, split, materials):
        placed.append(Placed(leaf_seed, x, y, angle, scale, _random_severities(rng)))
    ground = background(int(rng.integers(2**31)), split, materials)
    return compose(ground, placed, int(rng.integers(2**31)), split, materials)


def compose(
    ground: Array, placed: list[Placed], seed: int, split: Split, materials: Materials
) -> Scene:
    """Lay leaves on a background and take the photograph.

    Args:
        ground: uint8 [480, 640, 3] RGB; left as it is.
        placed: The leaves, the lowest first.
        seed: Of light, sharpness and noise.
        split: Which leaves to use.
        materials: What `ensure_materials` returned.
    """
    rng = np.random.default_rng([seed, 13])
    canvas = ground.astype(np.float32)
    instances = np.zeros(canvas.shape[:2], np.uint8)
    lesions = np.zeros(canvas.shape[:2], np.uint8)
    sun = rng.uniform(-5, 5, 2)
    dark = float(rng.uniform(0.35, 0.65))
    truths = []
    for index, item in enumerate(placed):
        leaf = _leaf(item.seed, split, materials)
        rgb, labels, fractions = paint(leaf, item.seed, item.severities)
        turn, (left, top, side) = _into_patch(item)
        size = (side, side)
        alpha = cv2.warpAffine(leaf.alpha, turn, size)
        colours = cv2.warpAffine(rgb, turn, size, borderMode=cv2.BORDER_REPLICATE)
        marks = cv2.warpAffine(labels, turn, size, flags=cv2.INTER_NEAREST)
        rows, columns, cut_rows, cut_columns = _overlap(left, top, side)
        shade = cv2.warpAffine(alpha, np.array([[1, 0, sun[0]], [0, 1, sun[1]]], np.float32), size)
        shade = cv2.blur(shade, (7, 7))[cut_rows, cut_columns, None]
        alpha = alpha[cut_rows, cut_columns]
        part = canvas[rows, columns]
        part *= 1 - dark * shade
        part += alpha[..., None] * (colours[cut_rows, cut_columns] - part)
        here = alpha > 0.5
        instances[rows, columns][here] = index + 1
        lesions[rows, columns][here] = marks[cut_rows, cut_columns][here]
        x, y, width, height = cv2.boundingRect(here.astype(np.uint8))
        x, y = x + columns.start, y + rows.start
        grades = {disease: grade_of(disease, part) for disease, part in fractions.items()}
        box = (float(x), float(y), float(x + width), float(y + height))
        truths.append(LeafTruth(box, grades, fractions))
    return Scene(_exposed(rng, canvas), tuple(truths), instances, lesions)


def background(seed: int, split: Split, materials: Materials) -> Array:
    """Make a place to lay leaves on: a piece of a photograph, or drawn soil or straw.

    Args:
        seed: Any non-negative integer.
        split: Which photographs, and which kind of drawn ground, may be used.
        materials: Photographs.

    Returns:
        uint8 [480, 640, 3] RGB.
    """
    rng = np.random.default_rng([seed, 21, split == "test"])
    if rng.random() < 0.25:
        return _drawn_ground(rng, straw=split == "test")
    places = materials.backgrounds[split]
    place = places[int(rng.integers(len(places)))]
    height, width = place.shape[:2]
    most = min(height / PHOTO_HEIGHT, width / PHOTO_WIDTH)
    zoom = most * float(rng.uniform(0.55, 1.0))
    size = (int(PHOTO_WIDTH * zoom), int(PHOTO_HEIGHT * zoom))
    left, top = (int(rng.integers(limit + 1)) for limit in (width - size[0], height - size[1]))
    piece = place[top : top + size[1], left : left + size[0]]
    if rng.random() < 0.5:
        piece = piece[:, ::-1]
    shown = cv2.resize(
        np.ascontiguousarray(piece), (PHOTO_WIDTH, PHOTO_HEIGHT), interpolation=cv2.INTER_LINEAR
    ).astype(np.float32)
    if piece.std(axis=2).mean() < 1:  # a grey texture: give it the colours of earth
        shown *= np.array([1.0, rng.uniform(0.76, 0.92), rng.uniform(0.5, 0.75)], np.float32)
    shown *= np.float32(rng.uniform(0.75, 1.1))
    made: Array = np.clip(shown, 0, 255).astype(np.uint8)
    return made


def _drawn_ground(rng: np.random.Generator, straw: bool) -> Array:
    """Draw soil with stones (training) or with straw on it (test)."""
    side = PHOTO_WIDTH
    shade = (
        1 + 0.12 * noise(rng, 6, side) + 0.1 * noise(rng, 60, side) + 0.1 * noise(rng, 240, side)
    )
    earth = np.array([rng.uniform(85, 150), rng.uniform(65, 112), rng.uniform(45, 82)], np.float32)
    ground = np.clip(earth * shade[:PHOTO_HEIGHT, :, None], 0, 255)
    for _ in range(int(rng.integers(40, 160))):
        x, y = int(rng.integers(PHOTO_WIDTH)), int(rng.integers(PHOTO_HEIGHT))
        tint = float(rng.uniform(0.6, 1.35))
        turn = float(rng.uniform(0, np.pi))
        if straw:
            reach = rng.uniform(10, 50)
            end = (int(x + reach * np.cos(turn)), int(y + reach * np.sin(turn)))
            colour = (175 * tint, 150 * tint, 92 * tint)
            cv2.line(ground, (x, y), end, colour, int(rng.integers(1, 3)), cv2.LINE_AA)
        else:
            axes = (int(rng.integers(2, 12)), int(rng.integers(2, 8)))
            colour = (128 * tint, 120 * tint, 108 * tint)
            angle = float(np.degrees(turn))
            cv2.ellipse(ground, (x, y), axes, angle, 0, 360, colour, cv2.FILLED, cv2.LINE_AA)
    drawn: Array = np.clip(cv2.blur(ground, (3, 3)), 0, 255).astype(np.uint8)
    return drawn


def _random_severities(rng: np.random.Generator) -> dict[str, float]:
    """Draw diseases for one leaf: often few, sometimes many."""
    if rng.random() < 0.12:
        return {}
    ill = rng.random(len(DISEASES)) < rng.uniform(0.25, 0.9)
    drawn = rng.uniform(0.25, 1.0, len(DISEASES))
    return {name: float(drawn[i]) for i, name in enumerate(DISEASES) if ill[i]}


def layout(
    rng: np.random.Generator, count: int, split: Split, materials: Materials
) -> Iterator[tuple[int, float, float, float, float]]:
    """Find places for leaves that overlap a little at most: seed, x, y, angle and scale."""
    taken = np.zeros((PHOTO_HEIGHT, PHOTO_WIDTH), bool)
    boxes: list[tuple[float, float, float, float]] = []
    largest = 0.98 - 0.012 * count
    for _ in range(count):
        seed = int(rng.integers(2**31))
        leaf = _leaf(seed, split, materials)
        scale = float(rng.uniform(0.5, largest))
        for attempt in range(60):
            if attempt % 20 == 19:
                scale = max(0.45, scale * 0.85)
            x = float(rng.uniform(0, PHOTO_WIDTH))
            y = float(rng.uniform(0, PHOTO_HEIGHT))
            angle = float(rng.uniform(-np.pi, np.pi))
            item = Placed(seed, x, y, angle, scale, {})
            turn, (left, top, side) = _into_patch(item)
            here = cv2.warpAffine(leaf.alpha, turn, (side, side)) > 0.5
            bx, by, bw, bh = cv2.boundingRect(here.astype(np.uint8))
            box = (left + bx, top + by, left + bx + bw, top + by + bh)
            inside = box[0] >= _EDGE and box[1] >= _EDGE
            if not inside or box[2] > PHOTO_WIDTH - _EDGE or box[3] > PHOTO_HEIGHT - _EDGE:
                continue
            if any(_share(box, other) > 0.3 for other in boxes):
                continue
            piece = here[by : by + bh, bx : bx + bw]
            below = taken[box[1] : box[3], box[0] : box[2]]
            if (piece & below).sum() > 0.03 * piece.sum():
                continue
            below |= piece
            boxes.append(box)
            yield seed, x, y, angle, scale
            break


def _share(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Return the part of the smaller box that lies in the other."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return width * height / smaller


@functools.lru_cache(maxsize=_LEAVES_KEPT)
def _leaf(seed: int, split: Split, materials: Materials) -> Any:
    return make_leaf(seed, split, materials)


def _into_patch(item: Placed) -> tuple[Array, tuple[int, int, int]]:
    """Return the transform of a leaf's picture into a square patch; the patch's left, top, side."""
    side = int(np.ceil(SPRITE * item.scale * 1.42)) + 2
    left, top = int(np.floor(item.x - side / 2)), int(np.floor(item.y - side / 2))
    cos, sin = item.scale * np.cos(item.angle), item.scale * np.sin(item.angle)
    centre = SPRITE / 2
    x, y = item.x - left, item.y - top
    turn = [[cos, -sin, x - cos * centre + sin * centre], [sin, cos, y - (sin + cos) * centre]]
    return np.array(turn, np.float32), (left, top, side)


def _overlap(left: int, top: int, side: int) -> tuple[slice, slice, slice, slice]:
    """Cut a patch to the photograph: rows and columns there, rows and columns in the patch."""
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(PHOTO_WIDTH, left + side), min(PHOTO_HEIGHT, top + side)
    return slice(y0, y1), slice(x0, x1), slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)


@functools.lru_cache(maxsize=1)
def _grain() -> Array:
    """One large piece of sensor noise; photographs take pieces of it."""
    rng = np.random.default_rng(4)
    grain: Array = rng.standard_normal((PHOTO_HEIGHT * 2, PHOTO_WIDTH * 2, 3), np.float32)
    return grain


def _exposed(rng: np.random.Generator, canvas: Array) -> Array:
    """Take the photograph: uneven light, white balance, a little blur and noise."""
    corners = rng.uniform(0.9, 1.1, (2, 2)).astype(np.float32)
    light = cv2.resize(corners, (PHOTO_WIDTH, PHOTO_HEIGHT), interpolation=cv2.INTER_LINEAR)
    canvas *= light[..., None] * (rng.uniform(0.95, 1.05, 3) * rng.uniform(0.88, 1.1)).astype("f4")
    sigma = float(rng.uniform(0.0, 0.75))
    if sigma > 0.3:
        canvas = cv2.GaussianBlur(canvas, (5, 5), sigma)
    y, x = int(rng.integers(PHOTO_HEIGHT)), int(rng.integers(PHOTO_WIDTH))
    grain = _grain()[y : y + PHOTO_HEIGHT, x : x + PHOTO_WIDTH]
    canvas += grain * np.float32(rng.uniform(1.0, 5.0))
    photo: Array = np.clip(canvas, 0, 255).astype(np.uint8)
    return photo
