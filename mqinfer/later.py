"""Later: what a handler or a client asks of the future, a message that is to come or is not to.

It is no more than a wish until the handler is done; `mqinfer.timers` keeps it. Pure.
"""

from __future__ import annotations

import datetime
import math
import time
from dataclasses import dataclass
from typing import Any

from mqinfer.errors import ConfigurationError
from mqinfer.message import Message
from mqinfer.times import parse_duration

# The server counts nanoseconds in 64 bits, which end in 2262.
FARTHEST = 100 * 366 * 86_400.0
MAX_NAME = 200  # characters of a name, and of a key's text


@dataclass(frozen=True, slots=True)
class Later:
    """One timer that is to be set, or (without a message) cancelled.

    Attributes:
        message: that comes when it is time.
        due: when, in seconds since the epoch.
        name: what later wishes replace or cancel it by; None: nothing does.
        key: names are told apart by it; None is the key of the message that is handled.
    """

    message: Message | None
    due: float = 0.0
    name: str | None = None
    key: str | None = None


def later(
    message: Message,
    *,
    after: float | str | datetime.timedelta | None,
    at: datetime.datetime | None,
    name: str | None,
    key: object,
) -> Later:
    """The wish for a timer.

    Raises:
        TypeError: `message` is none.
        ValueError: it is not said when, or that is no time; or the name or the key cannot be one.
    """
    if not isinstance(message, Message):
        raise TypeError(f"a timer is for a Message, not for a {type(message).__name__}")
    return Later(message, due_at(after, at), _text("name", name), _key(key, name))


def cancelled(name: str, key: object) -> Later:
    """The wish that there be no timer of this name.

    Raises:
        ValueError: the name or the key cannot be one.
    """
    if not isinstance(name, str):
        raise ValueError(f"a timer is cancelled by its name, not by {name!r}")  # noqa: TRY004
    return Later(None, name=_text("name", name), key=_key(key, name))


def due_at(
    after: float | str | datetime.timedelta | None,
    at: datetime.datetime | None,
    now: float | None = None,
) -> float:
    """When a timer is due, in seconds since the epoch.

    Args:
        after: from now, in seconds or as text ("1h").
        at: a time with a zone.
        now: seconds since the epoch; None is now.

    Raises:
        ValueError: not exactly one of the two is given, or it cannot be used.
    """
    if (after is None) == (at is None):
        raise ValueError("say when a timer is due: after='1h', or at= a datetime, one of the two")
    now = time.time() if now is None else now
    if at is not None:
        if not isinstance(at, datetime.datetime) or at.tzinfo is None:
            raise ValueError(f"at={at!r} must be a datetime with a zone (tzinfo=), such as UTC")
        due = at.timestamp()
    elif isinstance(after, datetime.timedelta):
        due = now + after.total_seconds()
    else:
        try:
            due = now + parse_duration(after)  # type: ignore[arg-type]
        except ConfigurationError as error:
            raise ValueError(f"after={error}") from None
    if not math.isfinite(due) or due - now > FARTHEST:
        raise ValueError("a timer is due within a hundred years")
    return due


def _text(what: str, value: str | None) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME or not value.isprintable():
        raise ValueError(
            f"a timer's {what} is 1 to {MAX_NAME} printable characters, not {str(value)[:80]!r}"
        )
    return value


def _key(key: Any, name: str | None) -> str | None:
    if key is not None and name is None:
        raise ValueError("key= tells timers of one name apart: give a name=, too")
    return None if key is None else _text("key", str(key))
