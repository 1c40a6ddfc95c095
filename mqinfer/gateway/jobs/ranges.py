"""Ranges: the part of a file that a client wants, as RFC 9110 (14) has it. Pure.

One range of bytes; of several, and of what is malformed, a server may give the whole: this does.
"""

from __future__ import annotations

import re

from mqinfer.gateway.problems import Problem

_RANGE = re.compile(r"bytes=\s*(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))\s*", re.ASCII)


def wanted(header: str | None, if_range: str | None, etag: str, size: int) -> range | None:
    """The bytes that a client wants; None is all of them.

    Args:
        header: its `Range`.
        if_range: its `If-Range`: it has a part of what has this tag, and else wants all.
        etag: of the file.
        size: of the file, in bytes.

    Raises:
        Problem: the file has no such bytes.
    """
    found = _RANGE.fullmatch(header or "")
    # Strong comparison (RFC 9110, 13.1.5); a date is never the file's, which has none.
    if found is None or (if_range is not None and if_range.strip() != etag):
        return None
    first, last, suffix = found.groups()
    if suffix is not None:
        start, stop = max(0, size - int(suffix)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return None  # malformed
    if start == size == 0:
        return None  # all of an empty file is from its beginning, as who goes on with one asks
    if start >= stop:
        told = {"content-range": f"bytes */{size}", "accept-ranges": "bytes", "etag": etag}
        raise Problem(416, "range", f"the file has {size:,} bytes", headers=told)
    return range(start, stop)


def told(part: range, size: int) -> str:
    """The `Content-Range` of a part."""
    return f"bytes {part.start}-{part.stop - 1}/{size}"
