"""Quantiles of measured times."""

from __future__ import annotations

from collections.abc import Sequence


def quantile(samples: Sequence[float], q: float) -> float:
    """The smallest sample that at least a share `q` of them does not exceed."""
    ordered = sorted(samples)
    return ordered[max(0, -(-int(q * 1e6) * len(ordered) // 1_000_000) - 1)]
