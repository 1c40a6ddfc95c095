"""What ClickHouse makes of numbers when it counts them, said again in Python."""

from __future__ import annotations

import math

from mqinfer.monitor.bins import CONFIDENCE_BINS, NAN, OCTAVES, OUTSIDE, PER_OCTAVE, ZERO


def confidence_key(value: float) -> str:
    """The bin of a confidence by its lower end: `0.95` holds 0.95 to 1, its end included."""
    if math.isnan(value):
        return NAN
    if not 0 <= value <= 1:
        return OUTSIDE
    place = min(int(value * CONFIDENCE_BINS), CONFIDENCE_BINS - 1)
    return f"{place / CONFIDENCE_BINS:.2f}"


def number_key(value: float) -> str:
    """The bin of any number."""
    if math.isnan(value):
        return NAN
    if value == 0:
        return ZERO
    size, most = abs(value), OCTAVES * PER_OCTAVE
    place = most - 1 if math.isinf(size) else math.floor(math.log2(size) * PER_OCTAVE)
    return f"{'+' if value > 0 else '-'}{min(max(place, -most), most - 1)}"
