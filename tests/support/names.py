"""Names of parametrized cases that are the same in every process, as pytest-xdist needs them."""

from __future__ import annotations

import re


def named(value: object) -> str:
    """A value as text, without where in memory it lies; sets in order."""
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(map(repr, value))) + "}"
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))
