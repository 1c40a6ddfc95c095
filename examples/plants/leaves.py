"""Single leaves, healthy: real cut-outs and drawn ones, each a small picture with a mask.

Every leaf is made from a seed. The families of outline that are drawn for the ``test`` split are
others than those of ``train``, and so are the real cut-outs and the tissue that drawn leaves wear.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from examples.plants.materials import Materials, Split

Array = npt.NDArray[Any]
Outline = Callable[[np.random.Generator], Array]

SPRITE = 144
"""Side of a leaf's picture in pixels; the leaf is about 136 long."""
_FINE = 2 * SPRITE
PHOTOGRAPHED: dict[Split, float] = {"train": 0.3, "test": 0.15}
"""Part of the leaves that are pieces of real ones. Few are there to train on, so they come often
and in many tints."""
TINTS: dict[Split, float] = {"train": 0.24, "test": 0.12}


@dataclass(frozen=True, eq=False)
class Leaf:
    """One leaf without lesions. Do not write into the arrays.

    Attributes:
        rgb: float32 [144, 144, 3], 0..255, valid where the mask is.
        alpha: float32 [144, 144], 0..1, smooth at the edge.
        family: What drew it, or ``photo``.
    """

    rgb: Array
    alpha: Array
    family: str


def make_leaf(seed: int, split: Split, materials: Materials) -> Leaf:
    """Make the leaf that belongs to a seed.

    Args:
        seed: Any non-negative integer; the same seed makes the same leaf.
        split: Which families and materials it may come from.
        materials: Real cut-outs.
    """
    rng = np.random.default_rng([seed, 1 if split == "test" else 0])
    cuts = materials.leaves[split]
    cut = cuts[int(rng.integers(len(cuts)))]
    if rng.random() < PHOTOGRAPHED[split]:
        return _photographed(rng, cut, TINTS[split])
    family = sorted(FAMILIES[split])[int(rng.integers(len(FAMILIES[split])))]
    points = FAMILIES[split][family](rng)
    alpha, scale, offset = _rasterise(points)
    tissue = _tissue(rng, cut) if rng.random() < 0.4 else _drawn_tissue(rng)
    rgb = tissue * _veins(rng, alpha, family in _POLAR, scale, offset)[..., None]
    return Leaf(_finish(np.clip(rgb, 0, 255)), _finish(alpha), family)


# Outlines. Each is float [n, 2] in units of the leaf's length, the midrib from (0, 0) to (1, 0).


def _along(upper: Array, lower: Array) -> Array:
    """Join the half widths above and below the midrib to one outline."""
    t = np.linspace(0, 1, len(upper))
    return np.concatenate(
        [np.stack([t, -upper], 1), np.stack([t, lower], 1)[::-1]],
    )


def _profile(rng: np.random.Generator, width: Array, teeth: float, lobes: float = 0.0) -> Array:
    """Make both halves of a leaf from one half width, with its teeth, lobes and unevenness."""
    t = np.linspace(0, 1, len(width))
    halves = []
    count = int(rng.integers(9, 18))
    lobe_count = float(rng.integers(3, 5))
    for _ in range(2):
        half = width * float(rng.uniform(0.9, 1.1))
        half = half * (1 + teeth * (((t * count + rng.random()) % 1.0) - 0.5))
        half = half * (1 + lobes * np.cos(2 * np.pi * (lobe_count * t + rng.uniform(0, 0.2))))
        halves.append(half)
    points = _along(halves[0], halves[1])
    bend = float(rng.normal(0, 0.07))
    points[:, 1] += bend * np.sin(np.pi * points[:, 0])
    return points


def _t() -> Array:
    return np.linspace(0, 1, 120)


def _ovate(rng: np.random.Generator) -> Array:
    width = rng.uniform(0.22, 0.33) * np.sin(np.pi * _t() ** rng.uniform(0.6, 0.8)) ** 0.9
    return _profile(rng, width, float(rng.choice([0.0, 0.08, 0.14])))


def _lanceolate(rng: np.random.Generator) -> Array:
    width = rng.uniform(0.08, 0.19) * np.sin(np.pi * _t() ** 0.8)
    return _profile(rng, width, float(rng.choice([0.0, 0.06])))


def _obovate(rng: np.random.Generator) -> Array:
    width = rng.uniform(0.22, 0.32) * np.sin(np.pi * _t() ** rng.uniform(1.3, 1.7)) ** 0.9
    return _profile(rng, width, float(rng.choice([0.0, 0.1])))


def _oak(rng: np.random.Generator) -> Array:
    width = rng.uniform(0.24, 0.32) * np.sin(np.pi * _t() ** 1.1) ** 0.7
    return _profile(rng, width, 0.0, rng.uniform(0.18, 0.32))


def _heart(rng: np.random.Generator) -> Array:
    t = _t()
    width = rng.uniform(0.36, 0.46) * np.sqrt(np.clip(t / 0.12, 0, 1)) * (1 - t**1.6) ** 0.8
    return _profile(rng, width, float(rng.choice([0.0, 0.05])))


def _maple(rng: np.random.Generator) -> Array:
    return _polar(rng, 5, rng.uniform(0.3, 0.45), 0.12)


def _elliptic(rng: np.random.Generator) -> Array:
    t = _t()
    width = rng.uniform(0.2, 0.3) * np.sqrt(np.clip(1 - (2 * t - 1) ** 2, 0, 1))
    return _profile(rng, width, float(rng.choice([0.0, 0.12])))


def _deltoid(rng: np.random.Generator) -> Array:
    t = _t()
    width = rng.uniform(0.32, 0.42) * np.clip(t / 0.2, 0, 1) ** 0.7 * (1 - t) ** 0.8 * 1.15
    return _profile(rng, width, float(rng.choice([0.0, 0.1])))


def _spatulate(rng: np.random.Generator) -> Array:
    t = _t()
    width = rng.uniform(0.2, 0.27) * (0.25 + t**2.2) * np.sqrt(np.clip((1 - t) / 0.2, 0, 1))
    return _profile(rng, width, float(rng.choice([0.0, 0.05])))


def _ivy(rng: np.random.Generator) -> Array:
    return _polar(rng, 3, rng.uniform(0.28, 0.4), 0.0)


def _polar(rng: np.random.Generator, lobes: int, depth: float, teeth: float) -> Array:
    """Draw a leaf whose lobes go out from the point where the stalk is."""
    angle = np.linspace(-np.pi, np.pi, 240)
    spread = 2.5  # radians from the first lobe to the last
    phase = (angle + spread / 2) / (spread / (lobes - 1))
    wave = 0.5 + 0.5 * np.cos(2 * np.pi * phase)
    inside = 1 / (1 + np.exp((np.abs(angle) - 1.95) * 6))
    radius = (0.28 + inside * 0.62 * (1 - depth * (1 - wave))) * (1 - 0.14 * np.abs(angle))
    radius = radius * (1 + teeth * (((angle * rng.integers(4, 7)) % 1.0) - 0.5))
    squash = float(rng.uniform(0.75, 1.0))
    points = np.stack([radius * np.cos(angle), squash * radius * np.sin(angle)], 1)
    points = points - [points[:, 0].min(), 0]
    outline: Array = points / points[:, 0].max()
    return outline


_POLAR = ("maple", "ivy")
FAMILIES: dict[Split, dict[str, Outline]] = {
    "train": {
        "ovate": _ovate,
        "lanceolate": _lanceolate,
        "obovate": _obovate,
        "oak": _oak,
        "heart": _heart,
        "maple": _maple,
    },
    "test": {"elliptic": _elliptic, "deltoid": _deltoid, "spatulate": _spatulate, "ivy": _ivy},
}


def _rasterise(points: Array) -> tuple[Array, float, Array]:
    """Draw an outline, as large as fits; also return what took it from units to pixels."""
    low, high = points.min(0), points.max(0)
    scale = float((_FINE - 16) / (high - low).max())
    offset = _FINE / 2 - scale * (low + high) / 2
    alpha = np.zeros((_FINE, _FINE), np.uint8)
    pixels = np.round(points * scale + offset).astype(np.int32)
    cv2.fillPoly(alpha, [pixels], (255,), lineType=cv2.LINE_AA)
    return alpha.astype(np.float32) / 255, scale, offset


def _green(rng: np.random.Generator) -> Array:
    """Return one leaf colour, float32 [3] RGB."""
    hsv = np.array([[[rng.uniform(36, 68), rng.uniform(85, 190), rng.uniform(75, 190)]]], np.uint8)
    colour: Array = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)
    return colour


def noise(rng: np.random.Generator, cells: int, side: int) -> Array:
    """Return smooth noise, float32 [side, side], mean about 0 and deviation about 1."""
    grid = rng.standard_normal((cells, cells), np.float32)
    smooth: Array = cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)
    return smooth


def _drawn_tissue(rng: np.random.Generator) -> Array:
    shade = 1 + 0.07 * noise(rng, 4, _FINE) + 0.04 * noise(rng, 24, _FINE)
    shade += 0.03 * noise(rng, 96, _FINE)
    shade += np.linspace(-1, 1, _FINE, dtype=np.float32)[None] * float(rng.normal(0, 0.08))
    tissue: Array = _green(rng)[None, None] * shade[..., None]
    return tissue


def _tissue(rng: np.random.Generator, cut: Array) -> Array:
    """Take the surface of a real leaf: its texture, with a colour of its own or a drawn one."""
    height, width = cut.shape[:2]
    inner = cut[int(height * 0.18) : int(height * 0.82), int(width * 0.05) : int(width * 0.95)]
    length = min(inner.shape[1], int(inner.shape[0] * rng.uniform(1.0, 2.0)))
    left = int(rng.integers(inner.shape[1] - length + 1))
    piece = np.ascontiguousarray(inner[:, left : left + length, :3])
    rgb = cv2.resize(piece, (_FINE, _FINE), interpolation=cv2.INTER_AREA).astype(np.float32)
    if rng.random() < 0.7:
        rgb = rgb / (rgb.mean((0, 1)) + 1) * _green(rng)
    else:
        rgb = rgb * np.float32(rng.uniform(0.6, 1.05))
    tissue: Array = rgb
    return tissue


def _veins(
    rng: np.random.Generator, alpha: Array, polar: bool, scale: float, offset: Array
) -> Array:
    """Draw the veins: a factor on the tissue, float32, about 1."""
    lines = np.zeros(alpha.shape, np.uint8)

    def draw(start: tuple[float, float], end: tuple[float, float], width: int) -> None:
        ends = [tuple(int(v) for v in np.array(p) * scale + offset) for p in (start, end)]
        cv2.line(lines, ends[0], ends[1], (255,), width, cv2.LINE_AA)

    draw((0, 0), (0.97, 0), 4)
    if polar:
        for angle in np.linspace(-1.25, 1.25, 5):
            draw((0.25, 0), (0.25 + 0.9 * np.cos(angle), 0.9 * np.sin(angle)), 3)
    slant = float(rng.uniform(0.5, 1.1))
    for start in np.linspace(0.08, 0.85, int(rng.integers(6, 12))):
        for side in (-1, 1):
            draw((start, 0), (start + 0.45 * np.cos(slant), side * 0.45 * np.sin(slant)), 2)
    soft = cv2.GaussianBlur(lines, (0, 0), 1.2).astype(np.float32) / 255
    strength = float(rng.uniform(0.12, 0.4)) * (1 if rng.random() < 0.8 else -0.7)
    edge = cv2.GaussianBlur(alpha, (0, 0), 7)
    veins: Array = (1 + strength * soft) * (0.82 + 0.18 * edge)
    return veins


def _finish(fine: Array) -> Array:
    shrunk: Array = cv2.resize(fine, (SPRITE, SPRITE), interpolation=cv2.INTER_AREA)
    shrunk = np.ascontiguousarray(shrunk, np.float32)
    shrunk.setflags(write=False)
    return shrunk


def _photographed(rng: np.random.Generator, cut: Array, spread: float) -> Leaf:
    """Take a piece of a real leaf as it is, at most three times as long as it is wide."""
    height, width = cut.shape[:2]
    length = min(width, int(height * rng.uniform(1.8, 3.0)))
    left = int(rng.integers(width - length + 1))
    piece = np.ascontiguousarray(cut[:, left : left + length])
    if rng.random() < 0.5:
        piece = np.ascontiguousarray(piece[:, ::-1])
    scale = (_FINE - 16) / max(piece.shape[:2])
    small = cv2.resize(piece, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    top, side = (_FINE - small.shape[0]) // 2, (_FINE - small.shape[1]) // 2
    whole = np.zeros((_FINE, _FINE, 4), np.float32)
    whole[top : top + small.shape[0], side : side + small.shape[1]] = small
    tint = rng.uniform(0.98 - spread, 0.98 + spread, 3) * rng.uniform(0.7, 1.05)
    rgb = np.clip(whole[..., :3] * tint.astype(np.float32), 0, 255)
    return Leaf(_finish(rgb), _finish(whole[..., 3] / 255), "photo")
