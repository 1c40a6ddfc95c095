"""SQL: names and values as they stand in a statement; pure."""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import uuid
from typing import Any


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def text_literal(value: str) -> str:
    """A string as SQL."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'").replace("\0", "\\0") + "'"


def literal(value: Any) -> str:
    """A field's default as SQL (values of messages are never put into SQL, they are inserted).

    Raises:
        TypeError: there is no way to write it.
    """
    match value:
        case None:
            return "NULL"
        case enum.Enum():
            return literal(value.value)
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return repr(value) if math.isfinite(value) else f"toFloat64({text_literal(str(value))})"
        case decimal.Decimal():
            return text_literal(format(value, "f"))
        case str():
            return text_literal(value)
        case bytes() | bytearray():
            return f"unhex('{value.hex()}')"
        case datetime.datetime():
            zone = value.tzinfo or datetime.UTC
            utc = value.replace(tzinfo=zone).astimezone(datetime.UTC).replace(tzinfo=None)
            return f"toDateTime64('{utc.isoformat(' ')}', 6, 'UTC')"
        case datetime.date() | uuid.UUID():
            return text_literal(str(value))
        case list() | set() | frozenset():
            return f"[{', '.join(map(literal, value))}]"
        case tuple():
            raise TypeError("a tuple may be an array or a tuple")
        case dict():
            return f"map({', '.join(literal(x) for pair in value.items() for x in pair)})"
        case _:
            raise TypeError(f"no literal for {type(value).__name__}")
