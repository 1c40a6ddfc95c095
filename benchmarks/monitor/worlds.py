"""Worlds: streams of labels whose shares are known, stable or changed; many months at once."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mqinfer.monitor.reference import STEP

if TYPE_CHECKING:
    Counts = np.ndarray[Any, np.dtype[np.uint8]]
    Floats = np.ndarray[Any, np.dtype[np.float64]]

SHARES = (0.40, 0.25, 0.15, 0.10, 0.07, 0.03)
CHANGED = 3  # the label whose share is 0.10, and changes
DAY = 86_400 // STEP
ROWS = 2.0  # a step of 10 s: 17,280 a day, 518,400 in 30 days
_CLUSTER = 8  # rows of one photograph
_PHOTOGRAPHS = 2**18  # that are drawn once for each share, and then come again and again


def shares_with(share: float) -> Floats:
    """The shares when the one that changes is `share`, and all others give way in proportion."""
    shares = np.array(SHARES) * (1 - share) / (1 - SHARES[CHANGED])
    shares[CHANGED] = share
    return shares


@dataclass(frozen=True)
class World:
    """How rows come.

    Attributes:
        name: of it.
        told: in a line.
        clustered: whether eight rows come together, and are more alike than others.
        daily: whether the traffic (by 80 %) and the shares (by 30 %) have a cycle of the day.
    """

    name: str
    told: str
    clustered: bool = False
    daily: bool = False

    def steps(
        self,
        rng: np.random.Generator,
        first: int,
        count: int,
        months: int,
        share: float = SHARES[CHANGED],
    ) -> Counts:
        """Counts of so many steps in each of so many months, of shape (steps, labels, months)."""
        numbers = np.arange(first, first + count)[:, None]
        p, rows = shares_with(share)[None], np.full(numbers.shape, ROWS)
        if self.daily:
            turn = 2 * np.pi * numbers / DAY
            rows = rows * (1 + 0.8 * np.sin(turn))
            p = p * np.exp(0.3 * np.sin(turn + np.arange(len(SHARES))))
            p = p / p.sum(axis=1, keepdims=True)
        if not self.clustered:
            return _poisson(rng, rows * p, months)
        photographs = _poisson(rng, rows / _CLUSTER, months)[:, 0]
        leaves = _photographs(share)
        counts = np.zeros((count, len(SHARES), months), np.uint8)
        for number in range(int(photographs.max(initial=0))):
            steps, where = np.nonzero(photographs > number)
            counts[steps, :, where] += leaves[rng.integers(0, _PHOTOGRAPHS, len(steps))]
        return counts


def _poisson(rng: np.random.Generator, means: Floats, months: int) -> Counts:
    """Small numbers by inversion: of shape (steps, labels, months) for means of (steps, labels)."""
    drawn = rng.integers(0, 2**32, (*means.shape, months), np.uint32)
    counts = np.zeros(drawn.shape, np.uint8)
    sure = np.zeros(means.shape)
    for number in range(64):
        sure += np.exp(-means) * means**number / math.factorial(number)
        most = np.minimum(np.floor(sure * 2**32), 2**32 - 1).astype(np.uint32)
        more = drawn > most[..., None]
        if not more.any():
            break
        counts += more
    return counts


@functools.cache
def _photographs(share: float) -> Counts:
    """Labels of the leaves of photographs, of shape (photographs, labels)."""
    rng = np.random.default_rng(int(share * 1000))
    # Four photographs' worth of agreement: of two leaves of one, a fifth are alike because they
    # are of one (Dirichlet-multinomial, correlation 1 / (1 + 4)).
    drawn = rng.standard_gamma(4 * shares_with(share), (_PHOTOGRAPHS, len(SHARES))) + 1e-12
    leaves = rng.multinomial(_CLUSTER, drawn / drawn.sum(axis=1, keepdims=True))
    return leaves.astype(np.uint8)


WORLDS = (
    World("independent", "each row by itself"),
    World("clustered", "eight rows of one photograph at once, more alike than others", True),
    World("daily", "traffic +-80 %, shares +-30 % over a day", daily=True),
)
