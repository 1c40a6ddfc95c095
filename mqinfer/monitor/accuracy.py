"""Accuracy: an estimate of it without truth, from how sure a model is; pure.

On a run whose truth is known, each bin of confidence has an accuracy. If only what comes in
changes, and not what is right for it (covariate shift), rows of one confidence stay as often right
as they were, so the accuracy now is the mean of the bins' accuracies, weighted by their shares now
(confidence-based performance estimation: Garg et al., Leveraging unlabeled data to predict
out-of-distribution performance, 2022; NannyML's CBPE). Of any other change it knows nothing, and
says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

CAVEAT: Final = "under covariate shift only: what is right for an input must not have changed"
_Z: Final = 1.96


@dataclass(frozen=True, slots=True)
class Estimate:
    """An accuracy and its interval of 95 %.

    Attributes:
        value: the accuracy.
        low: the interval's lower end.
        high: its upper end.
        rows: that it is about.
        labelled: rows whose truth it rests on.
        known: the share of the rows that lie in bins with truth; the others are left out.
        true: whether it is counted, by truth of these rows, and not estimated.
    """

    value: float
    low: float
    high: float
    rows: int
    labelled: int
    known: float = 1.0
    true: bool = False


def estimated(
    window: Mapping[str, int], labelled: Mapping[str, tuple[int, int]]
) -> Estimate | None:
    """The accuracy of rows of which only the confidence is known; None where no bin has truth.

    The interval is of both samples (delta method): of the shares now, and of what was labelled,
    each bin's accuracy being (right + 1/2) / (n + 1).

    Args:
        window: rows by bin of confidence.
        labelled: (rows, right ones) by bin, of a run whose truth is known.
    """
    bins = {
        key: ((right + 0.5) / (n + 1), n)
        for key, (n, right) in labelled.items()
        if n > 0 and key in window
    }
    rows = sum(window[key] for key in bins)
    if not rows:
        return None
    value = sum(window[key] * accuracy for key, (accuracy, _) in bins.items()) / rows
    variance = 0.0
    for key, (accuracy, n) in bins.items():
        share = window[key] / rows
        variance += share * share * accuracy * (1 - accuracy) / (n + 1)  # of the bin's accuracy
        variance += share * (accuracy - value) ** 2 / rows  # of its share
    half = _Z * math.sqrt(variance)
    return Estimate(
        value,
        max(0.0, value - half),
        min(1.0, value + half),
        rows,
        sum(n for _, n in bins.values()),
        rows / sum(window.values()),
    )
