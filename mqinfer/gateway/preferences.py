"""Preferences: how long a client would wait (RFC 7240), and what it knows (RFC 9110).

What is malformed counts as not said: preferences are wishes, and RFC 7240 lets nobody fail for one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b

_PREFERENCE = re.compile(r'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)\s*(?:=\s*("[^"]*"|[^;,\s]*))?[^,]*')
_SECONDS = re.compile(r"[0-9]{1,6}", re.ASCII)
_TAG = re.compile(r'(?:W/)?("[^"]*")')


def wait(prefer: Iterable[str], most: float) -> float:
    """The seconds that a client would wait; 0 where it says none.

    Args:
        prefer: the values of its `Prefer` headers.
        most: that are granted.
    """
    for header in prefer:
        for found in _PREFERENCE.finditer(header[:1000]):
            value = (found[2] or "").strip('"')
            # The first of a name counts (RFC 7240, 2).
            if found[1].lower() == "wait" and _SECONDS.fullmatch(value):
                return min(float(value), most)
    return 0.0


def tag(body: bytes) -> str:
    """The strong entity tag of a body."""
    return f'"{blake2b(body, digest_size=12).hexdigest()}"'


def known(if_none_match: str | None, etag: str) -> bool:
    """Whether a client has what has this tag; weak comparison (RFC 9110, 13.1.2)."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or etag in _TAG.findall(if_none_match[:2000])
