"""Worlds: streams of labels whose shares are known, stable or changed; many months at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mqinfer.monitor.reference import STEP

if TYPE_CHECKING:
    Counts = np.ndarray[Any, np.dtype[np.int64]]

SHARES = (0.40, 0.25, 0.15, 0.10, 0.07, 0.03)
CHANGED = 3  # the label whose share is 0.10, and changes
DAY = 86_400 // STEP
ROWS = 2.0  # a step of 10 s: 17,280 a day, 518,400 in 30 days
_CLUSTER = 8  # rows of one photograph


def shares_with(share: float) -> np.ndarray[Any, np.dtype[np.float64]]:
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

    def step(
        self, rng: np.random.Generator, number: int, months: int, share: float = SHARES[CHANGED]
    ) -> Counts:
        """Counts of one step in each of so many months, of shape (months, labels)."""
        p, rows = shares_with(share), ROWS
        if self.daily:
            turn = 2 * np.pi * number / DAY
            rows *= 1 + 0.8 * np.sin(turn)
            p = p * np.exp(0.3 * np.sin(turn + np.arange(len(p))))
            p = p / p.sum()
        if not self.clustered:
            return rng.poisson(rows * p, (months, len(p)))
        photographs = rng.poisson(rows / _CLUSTER, months)
        # Four photographs' worth of agreement: of two leaves of one, a fifth are alike because
        # they are of one (Dirichlet-multinomial, correlation 1 / (1 + 4)).
        drawn = rng.standard_gamma(4 * p, (int(photographs.sum()), len(p))) + 1e-12
        leaves = rng.multinomial(_CLUSTER, drawn / drawn.sum(axis=1, keepdims=True))
        counts = np.zeros((months, len(p)), np.int64)
        np.add.at(counts, np.repeat(np.arange(months), photographs), leaves)
        return counts


WORLDS = (
    World("independent", "each row by itself"),
    World("clustered", "eight rows of one photograph at once, more alike than others", True),
    World("daily", "traffic +-80 %, shares +-30 % over a day", daily=True),
)
