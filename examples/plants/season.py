"""A season of drone photographs: fixed positions, day by day, healing faster in one area.

At one position in twenty the rain washes the medicine off, and for three days it gets worse again.

Everything follows from a seed, and every photograph can be made by itself.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from examples.plants.crops import PHOTO_HEIGHT, PHOTO_WIDTH
from examples.plants.lesions import DISEASES
from examples.plants.materials import DEFAULT_CACHE, Materials, Split, ensure_materials
from examples.plants.scenes import MAX_LEAVES, LeafTruth, Placed, background, compose, layout

Array = npt.NDArray[Any]
Area = Literal["control", "active"]

HEALING = {"control": 0.03, "active": 0.11}
"""Part of a disease that goes away in a day, by area."""
WASHED_POSITION, WASHED_DAYS, WORSE = 9, range(6, 9), 0.25
"""Of each 20 positions, where the medicine is washed off; on which days, from 0, the diseases grow
there; and by which part a day."""
START = datetime.date(2026, 5, 4)


@dataclass(frozen=True, eq=False)
class Shot:
    """One photograph of a season.

    Attributes:
        position_id: Where the drone was, as ``control-003``.
        area: Whether the plants there are medicated (``active``) or not (``control``).
        date: The day.
        photo: uint8 [480, 640, 3] RGB.
        leaves: The truth about every leaf.
    """

    position_id: str
    area: Area
    date: datetime.date
    photo: Array
    leaves: tuple[LeafTruth, ...]


@dataclass(frozen=True, eq=False)
class Season:
    """A fleet of drones over fixed positions, day by day; half of them in each area.

    A position keeps its leaves; from day to day the drone drifts a little, the light changes
    and the diseases heal, faster in the active area (but see `WASHED_POSITION`). Any shot can be
    made by itself.

    Attributes:
        positions: Number of positions; the areas alternate.
        days: Number of days.
        seed: Of everything.
        split: Which leaves and backgrounds are used.
        materials: What `ensure_materials` returned.
        start: The first day.
    """

    positions: int
    days: int
    seed: int
    split: Split
    materials: Materials
    start: datetime.date = START

    def __len__(self) -> int:
        return self.positions * self.days

    @property
    def after(self) -> datetime.date:
        """The day after the last one."""
        return self.start + datetime.timedelta(days=self.days)

    def __iter__(self) -> Iterator[Shot]:
        for day in range(self.days):
            for position in range(self.positions):
                yield self.shot(position, day)

    def shot(self, position: int, day: int) -> Shot:
        """Make the photograph of one position on one day.

        Args:
            position: 0 up to `positions`.
            day: from 0; after `days` the plants go on healing as before.
        """
        area: Area = "active" if position % 2 else "control"
        ground, leaves = _position(
            self.seed, position, self._leaf_count(position), self.split, self.materials
        )
        rng = np.random.default_rng([self.seed, position, day, 3])
        turn, zoom = float(rng.normal(0, 0.012)), float(rng.normal(1, 0.006))
        dx, dy = (float(v) for v in rng.uniform(-3, 3, 2))
        left = _left(area, position, day)
        today = []
        for leaf in leaves:
            severities = {
                disease: min(0.99, at_start * left * float(rng.uniform(0.94, 1.06)))
                for disease, at_start in leaf.severities.items()
            }
            x, y = _turned(leaf.x, leaf.y, turn, zoom)
            angle = leaf.angle + turn + float(rng.normal(0, 0.03))
            today.append(
                Placed(leaf.seed, x + dx, y + dy, angle, leaf.scale * zoom, severities),
            )
        moved = _moved(ground, turn, zoom, dx, dy)
        made = compose(moved, today, int(rng.integers(2**31)), self.split, self.materials)
        date = self.start + datetime.timedelta(days=day)
        return Shot(f"{area}-{position:03d}", area, date, made.photo, made.leaves)

    def _leaf_count(self, position: int) -> int:
        """Spread the counts evenly over the positions, so that any number has the same mean."""
        order = np.random.default_rng([self.seed, 5]).permutation(self.positions)
        part = (order[position] + 0.5) / self.positions
        return round(MAX_LEAVES * float(part**0.62))


def season(
    positions: int,
    days: int,
    seed: int,
    split: Split = "test",
    materials: Materials | None = None,
) -> Iterator[Shot]:
    """Yield every photograph of a season, day by day and position by position.

    Args:
        positions: Number of positions; the areas alternate.
        days: Number of days.
        seed: Of everything.
        split: Which leaves and backgrounds are used; ``test`` is what no model was trained on.
        materials: What `ensure_materials` returned; by default those of the default cache.
    """
    found = materials or ensure_materials(DEFAULT_CACHE)
    return iter(Season(positions, days, seed, split, found))


def _left(area: Area, position: int, day: int) -> float:
    """The part of the diseases that is left after so many days."""
    washed = [one for one in WASHED_DAYS if one <= day] if position % 20 == WASHED_POSITION else []
    return float((1 - HEALING[area]) ** (day - len(washed)) * (1 + WORSE) ** len(washed))


@functools.lru_cache(maxsize=512)
def _position(
    seed: int, position: int, count: int, split: Split, materials: Materials
) -> tuple[Array, tuple[Placed, ...]]:
    """Return what stays at a position: its ground and its leaves as ill as on the first day."""
    rng = np.random.default_rng([seed, position, 2])
    level = rng.uniform(0.3, 0.85, len(DISEASES))
    placed = []
    for leaf_seed, x, y, angle, scale in layout(rng, count, split, materials):
        drawn = np.clip(level + rng.normal(0, 0.17, len(DISEASES)), 0.0, 0.98)
        severities = dict(zip(DISEASES, map(float, drawn), strict=True))
        placed.append(Placed(leaf_seed, x, y, angle, scale, severities))
    ground = background(int(rng.integers(2**31)), split, materials)
    ground.setflags(write=False)
    return ground, tuple(placed)


def _turned(x: float, y: float, turn: float, zoom: float) -> tuple[float, float]:
    dx, dy = x - PHOTO_WIDTH / 2, y - PHOTO_HEIGHT / 2
    cos, sin = zoom * np.cos(turn), zoom * np.sin(turn)
    return (
        float(PHOTO_WIDTH / 2 + cos * dx - sin * dy),
        float(PHOTO_HEIGHT / 2 + sin * dx + cos * dy),
    )


def _moved(ground: Array, turn: float, zoom: float, dx: float, dy: float) -> Array:
    x, y = _turned(0, 0, turn, zoom)
    cos, sin = zoom * np.cos(turn), zoom * np.sin(turn)
    move = np.array([[cos, -sin, x + dx], [sin, cos, y + dy]], np.float32)
    size = (PHOTO_WIDTH, PHOTO_HEIGHT)
    moved: Array = cv2.warpAffine(ground, move, size, borderMode=cv2.BORDER_REFLECT)
    return moved
