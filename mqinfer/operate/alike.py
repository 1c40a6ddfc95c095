"""Alike: errors that differ in particulars alone are one. Pure."""

from __future__ import annotations

import re

# What differs between messages that fail for one reason.
_PARTICULAR = re.compile(
    r"'[^']*'|\"[^\"]*\"|\(\d+ bytes.*|\[[^\]]*\]|\b[0-9a-f]{16,}\b|[0-9]+(?:[.,][0-9]+)*"
)


def pattern(text: str) -> str:
    """What is the same in all errors of a kind: names in quotes, ids and numbers are left out."""
    return _PARTICULAR.sub("…", " ".join(text.split()))
