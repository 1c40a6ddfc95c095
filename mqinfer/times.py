"""Durations, points in time and sizes as people write them: `500ms`, `2h`, `2026-05-01`, `64MB`.

Used by the settings and by the command line, so that both accept the same.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

from mqinfer.errors import ConfigurationError

_UNITS = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86_400.0,
    "w": 604_800.0,
}
_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"
_SECONDS = re.compile(rf"{_NUMBER}(?:e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_PART = re.compile(rf"({_NUMBER})\s*(us|ms|min|s|m|h|d|w)\s*", re.ASCII)
_SIZE = re.compile(rf"({_NUMBER})\s*([kmgt]i?b|b)?", re.ASCII | re.IGNORECASE)
# A number this large is a Unix time (after 2001), never a time span (31 years).
_EPOCH = 1e9
# Servers count nanoseconds in 64 bits: 292 years.
_LONGEST = 9.2e9

DURATION_HELP = "seconds, or a number with us, ms, s, m, h, d or w, such as 500ms, 2h or 1h30m"
TIME_HELP = "ISO 8601 such as 2026-05-01T12:00:00Z (no zone means UTC), or an age such as 2h"
SIZE_HELP = "bytes, or a number with kB, MB, GB (1000) or KiB, MiB, GiB (1024), such as 64MB"


def parse_duration(text: str | float) -> float:
    """Seconds from `1.5`, `"500ms"`, `"2h"`, `"1h30m"`, `"1d"`.

    Raises:
        ConfigurationError: `text` is no duration, negative, or longer than servers can count.
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        seconds = float(text) if 0 <= text <= _LONGEST else math.nan
    else:
        seconds = _duration(str(text).strip().lower())
    if not 0 <= seconds <= _LONGEST:
        raise ConfigurationError(f"{text!r} is no duration: write {DURATION_HELP}")
    return seconds


def span(seconds: float) -> str:
    """Seconds as people read them, in one unit: `90 s`, `5 min`, `3 h`, `2 d`."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _duration(text: str) -> float:
    """Seconds, or NaN if `text` is none of the forms."""
    if _SECONDS.fullmatch(text):
        return float(text)
    total, place = 0.0, 0
    while place < len(text):
        part = _PART.match(text, place)
        if part is None:
            return math.nan
        total += float(part[1]) * _UNITS[part[2]]
        place = part.end()
    return total if text else math.nan


def parse_time(text: str | float, *, now: datetime | None = None) -> datetime:
    """A point in time, in UTC.

    Args:
        text: ISO 8601 (`2026-05-01`, `2026-05-01T12:00:00+02:00`; UTC without a zone), `now`, a
            span before now (`2h`, `2h ago`, `90` seconds), or Unix seconds (from 1e9 on).
        now: what spans are counted from; the current time by default.

    Raises:
        ConfigurationError: `text` is none of these.
    """
    now = now or datetime.now(UTC)
    clean = str(text).strip()
    lower = clean.lower()
    wrong = ConfigurationError(f"{text!r} is no time: write {TIME_HELP}")
    if lower == "now":
        return now
    span = lower.removesuffix("ago").strip()
    if re.fullmatch(r"(19|20)\d{6}", span):  # 20260501: a date for people, seconds for us
        raise ConfigurationError(
            f"{text!r} can be read in two ways: write the date as "
            f"{span[:4]}-{span[4:6]}-{span[6:]}, or the seconds as {span}s"
        )
    seconds = _duration(span)
    try:
        if not math.isnan(seconds):
            if seconds >= _EPOCH and _SECONDS.fullmatch(lower):
                return datetime.fromtimestamp(seconds, UTC)
            return now - timedelta(seconds=seconds)
        parsed = datetime.fromisoformat(clean)
        # Offsets near the ends of the calendar overflow only here.
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise wrong from None


def parse_size(text: str | int) -> int:
    """Bytes from `65536`, `"64MB"`, `"1.5GiB"`.

    Raises:
        ConfigurationError: `text` is no size.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        if text >= 0:
            return text
    elif found := _SIZE.fullmatch(str(text).strip()):
        unit = (found[2] or "b").lower()
        base = 1024 if "i" in unit else 1000
        return int(float(found[1]) * base ** ("bkmgt".index(unit[0])))
    raise ConfigurationError(f"{text!r} is no size: write {SIZE_HELP}")
