"""Distance: how much counts of a window differ from those of a reference; pure.

Two samples of one distribution differ, too, the more the smaller they are. So every distance comes
with what it is expected to be without any change, which is subtracted, and says when there are too
few rows for it to mean anything.

Sources: PSI, the population stability index, is Jeffreys' divergence (Siddiqi, Credit Risk
Scorecards, 2006); without a change it is about (1/n + 1/m) times a chi-square of K - 1 degrees
(Yurdakul, Statistical Properties of Population Stability Index, 2018). JSD: Lin, Divergence
Measures Based on the Shannon Entropy, 1991; to second order it is PSI / 8, in nats. The interval of
a share: Wilson, Probable Inference, 1927.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    Counts = Sequence[float] | np.ndarray[Any, Any]
    Floats = np.ndarray[Any, np.dtype[np.float64]]

# A distance is not told where chance alone is expected to give more than this, in PSI.
NOISE = 0.1


@dataclass(frozen=True, slots=True)
class Distance:
    """How far apart two sets of counts are.

    Attributes:
        raw: as its formula gives it.
        expected: what is expected of two samples of this size without any change.
        parts: what each key adds to `raw`, in the order of the counts.
        enough: whether there are rows enough for it to mean something.
    """

    raw: float
    expected: float
    parts: tuple[float, ...]
    enough: bool

    @property
    def value(self) -> float:
        """What is left when chance is subtracted, at least 0."""
        return max(0.0, self.raw - self.expected)


def shares(counts: Counts) -> Floats:
    """Shares that are never 0: p = (n_k + 1/2) / (n + K/2), the estimate of Krichevsky-Trofimov.

    Args:
        counts: of shape (keys, ...).
    """
    given = np.asarray(counts, np.float64)
    found: Floats = (given + 0.5) / (given.sum(axis=0) + 0.5 * len(given))
    return found


def _expected(window: Counts, reference: Counts) -> float:
    n, m = float(np.sum(window)), float(np.sum(reference))
    return (len(window) - 1) * (1 / n + 1 / m) if n and m else math.inf


def psi(window: Counts, reference: Counts) -> Distance:
    """The population stability index, sum of (p - q) ln(p / q).

    Args:
        window: a count for each key.
        reference: a count for each of the same keys.
    """
    p, q = shares(window), shares(reference)
    parts = (p - q) * np.log(p / q)
    expected = _expected(window, reference)
    return Distance(float(parts.sum()), expected, tuple(parts.tolist()), expected <= NOISE)


def jsd(window: Counts, reference: Counts) -> Distance:
    """The Jensen-Shannon divergence in bits, 0 to 1; arguments as of `psi`."""
    p, q = shares(window), shares(reference)
    mean = (p + q) / 2
    parts = (p * np.log2(p / mean) + q * np.log2(q / mean)) / 2
    expected = _expected(window, reference)
    bits = expected / (8 * math.log(2))
    return Distance(float(parts.sum()), bits, tuple(parts.tolist()), expected <= NOISE)


def wasserstein(window: Counts, reference: Counts, places: Sequence[float]) -> float | None:
    """How far a row moves on the average, in the unit of the numbers; None without rows.

    The first Wasserstein distance: the area between the two distribution functions.

    Args:
        window: a count for each bin.
        reference: a count for each bin.
        places: a number of each bin, in any order.
    """
    n, m = float(np.sum(window)), float(np.sum(reference))
    if not (n and m):
        return None
    order = np.argsort(places, kind="stable")
    steps = np.diff(np.asarray(places, np.float64)[order])
    apart = np.cumsum(
        np.asarray(window, float)[order] / n - np.asarray(reference, float)[order] / m
    )
    return float(np.abs(apart[:-1]) @ steps)


def wilson(count: Any, rows: Any, z: float = 1.96) -> tuple[Any, Any]:
    """Wilson's interval of a share; of arrays, element by element.

    Args:
        count: rows that have it.
        rows: of all; (0, 1) where there are none.
        z: how many standard errors wide; 1.96 covers 95 %.
    """
    n = np.maximum(np.asarray(rows, np.float64), 1e-12)
    p = np.asarray(count, np.float64) / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return np.clip(centre - half, 0.0, 1.0), np.clip(centre + half, 0.0, 1.0)
