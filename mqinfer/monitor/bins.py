"""Bins: numbers as one of few keys, which do not depend on any reference; pure.

A confidence is one of 20 bins of 0 to 1. Any other number has a sign and a quarter of an octave:
`+13` holds 2^(13/4) to 2^(14/4), 9.5 to 11.3, so that what is counted today can be compared with
what was counted before anybody knew how large the numbers are.
"""

from __future__ import annotations

import re
from typing import Final

CONFIDENCE_BINS: Final = 20
# Bins of an octave, and the octaves that are told apart: what is smaller or larger is put into the
# last of them.
PER_OCTAVE: Final = 4
OCTAVES: Final = 64
ZERO: Final = "0"
# Keys that stand for no place on the axis.
NAN: Final = "nan"
MISSING: Final = "NULL"
OUTSIDE: Final = "outside"  # a confidence below 0 or above 1

_NUMBER = re.compile(r"([+-])(-?\d+)")
_CONFIDENCE = re.compile(r"0\.\d\d")


def middle(key: str) -> float | None:
    """A number in the middle of a bin of either kind; None where it has no place on the axis."""
    if key == ZERO:
        return 0.0
    if found := _NUMBER.fullmatch(key):
        size = float(2 ** ((int(found[2]) + 0.5) / PER_OCTAVE))
        return size if found[1] == "+" else -size
    if _CONFIDENCE.fullmatch(key):
        return float(key) + 0.5 / CONFIDENCE_BINS
    return None


def range_of(key: str) -> str:
    """The numbers that lie in a bin of either kind, for a person; any other key as it is."""
    if found := _NUMBER.fullmatch(key):
        low, high = (2 ** ((int(found[2]) + more) / PER_OCTAVE) for more in (0, 1))
        if found[1] == "-":
            low, high = -high, -low
        return f"{low:.4g} to {high:.4g}"
    if _CONFIDENCE.fullmatch(key):
        return f"{key} to {float(key) + 1 / CONFIDENCE_BINS:.2f}"
    return key
