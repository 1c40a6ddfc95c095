"""Values: what is sent for a field's value, so that ClickHouse's column holds just that.

Each conversion keeps the value exactly or raises ValueError or TypeError that names it. What a
column declares to be less precise is the one thing that is rounded to it: a float to Float32, the
end of a second to DateTime64(3).
"""

from __future__ import annotations

import base64
import datetime
import decimal
import ipaddress
import struct
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from mqinfer.blob import Blob

Convert = Callable[[Any], Any]

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_EPOCH_DAY = datetime.date(1970, 1, 1).toordinal()
_SECOND = 1_000_000  # in microseconds


@runtime_checkable
class ByColumn(Protocol):
    """A conversion that takes a whole column in less time than its values one by one."""

    def __call__(self, value: Any) -> Any:
        """One value."""

    def column(self, column: list[Any]) -> list[Any]:
        """All values of a column; raises what one of them would."""


def shown(value: Any) -> str:
    """A value for an error: in one line, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


# --- numbers --------------------------------------------------------------------------------------


class Whole:
    """Whole numbers from `least` to `most`, of ints."""

    def __init__(self, least: int, most: int):
        self._least, self._most = least, most

    def __call__(self, value: int) -> int:
        """One value."""
        if not self._least <= value <= self._most:
            raise ValueError(f"{shown(value)} is outside {self._least} to {self._most}")
        return value

    def column(self, column: list[int]) -> list[int]:
        """A column, at a tenth of the time."""
        if column and not self._least <= min(column) <= max(column) <= self._most:
            return list(map(self, column))  # raises, and says for which
        return column


def integral(whole: Whole) -> Convert:
    """Whole numbers, of floats."""

    def convert(value: float) -> int:
        if not float(value).is_integer():
            raise ValueError(f"{shown(value)} is no whole number")
        return whole(int(value))

    return convert


def exact_float(value: int) -> float:
    """Float64, of ints."""
    if (number := float(value)) != value:
        raise ValueError(f"{shown(value)} has more digits than a Float64 holds")
    return number


def exact_single(value: int) -> float:
    """Float32, of ints."""
    number = exact_float(value)
    if _SINGLE.unpack(_SINGLE.pack(number))[0] != value:
        raise ValueError(f"{shown(value)} has more digits than a Float32 holds")
    return number


_SINGLE = struct.Struct("<f")


class Single:
    """Float32, of floats: rounded to its precision, but never to infinity."""

    def __call__(self, value: float) -> float:
        """One value."""
        try:
            _SINGLE.pack(value)
        except OverflowError:
            raise ValueError(f"{shown(value)} is too great for a Float32") from None
        return value

    def column(self, column: list[float]) -> list[float]:
        """A column, at a fifth of the time."""
        try:
            struct.pack(f"<{len(column)}f", *column)
        except OverflowError:
            return list(map(self, column))  # raises, and says for which
        return column


def truth(value: Any) -> bool:
    """Bool: of bools, and of 0 and 1."""
    if isinstance(value, str) or value not in (0, 1):
        raise ValueError(f"{shown(value)} is neither true nor false: a Bool column wants a bool")
    return bool(value)


class Scaled:
    """Decimals of so many digits, `scale` of them after the point."""

    def __init__(self, digits: int, scale: int):
        self._unit = decimal.Decimal(1).scaleb(-scale)
        self._what = f"Decimal({digits}, {scale})"
        # Whatever does not fit into its digits, or would be rounded, raises.
        self._context = decimal.Context(
            prec=digits, traps=[decimal.InvalidOperation, decimal.Inexact]
        )

    def __call__(self, value: decimal.Decimal | float) -> decimal.Decimal:
        """One value; a float is the decimal that it is written as."""
        number = decimal.Decimal(repr(value)) if isinstance(value, float) else value
        number = decimal.Decimal(number)
        if not number.is_finite():
            raise ValueError(f"{shown(value)} is no decimal number")
        try:
            return number.quantize(self._unit, context=self._context)
        except decimal.DecimalException:
            raise ValueError(f"{shown(value)} has more digits than a {self._what} holds") from None


# --- times ----------------------------------------------------------------------------------------


class Days:
    """Days since the epoch, of dates.

    Args:
        first: the first day that the column holds.
        last: the last one.
    """

    def __init__(self, first: datetime.date, last: datetime.date):
        self._first, self._last = first, last
        self._bounds = first.toordinal(), last.toordinal()

    def __call__(self, value: datetime.date) -> int:
        """One value."""
        if not self._first <= value <= self._last:
            raise ValueError(f"{value} is outside {self._first} to {self._last}")
        return value.toordinal() - _EPOCH_DAY

    def column(self, column: list[datetime.date]) -> list[int]:
        """A column, at a fifth of the time."""
        ordinals = list(map(datetime.date.toordinal, column))
        if ordinals and not self._bounds[0] <= min(ordinals) <= max(ordinals) <= self._bounds[1]:
            return list(map(self, column))  # raises, and says for which
        return [ordinal - _EPOCH_DAY for ordinal in ordinals]


class Ticks:
    """Points in time as units of 10^-scale seconds since the epoch.

    Args:
        scale: digits of the seconds after the point.
        first: the first second that the column holds, since the epoch.
        last: the first one that it does not hold.
    """

    def __init__(self, scale: int, first: int, last: int):
        self._up: int = 10 ** max(scale - 6, 0)
        self._down: int = 10 ** max(6 - scale, 0)
        self._first, self._last = first * _SECOND, last * _SECOND - 1

    def __call__(self, value: datetime.datetime) -> int:
        """One value."""
        if value.tzinfo is None:  # as ClickHouse would read what msgspec writes
            value = value.replace(tzinfo=datetime.UTC)
        micros = _micros(value - _EPOCH)
        if not self._first <= micros <= self._last:
            first, end = (_EPOCH + datetime.timedelta(0, 0, m) for m in (self._first, self._last))
            raise ValueError(f"{value} is outside {first:%Y-%m-%d} to {end:%Y-%m-%d}")
        return micros * self._up // self._down

    def column(self, column: list[datetime.datetime]) -> list[int]:
        """A column, at two thirds of the time."""
        if {value.tzinfo for value in column} != {datetime.UTC}:
            return list(map(self, column))
        micros = [_micros(value - _EPOCH) for value in column]
        if not self._first <= min(micros) <= max(micros) <= self._last:
            return list(map(self, column))  # raises, and says for which
        if self._up == self._down:
            return micros
        return [micro * self._up // self._down for micro in micros]


def _micros(delta: datetime.timedelta) -> int:
    return (delta.days * 86_400 + delta.seconds) * _SECOND + delta.microseconds


# --- texts ----------------------------------------------------------------------------------------


def member(members: Mapping[str, int]) -> Convert:
    """The name of an enumeration's member, of its name or of its code."""
    names = {code: name for name, code in members.items()}
    known = ", ".join(map(repr, members))
    known = known if len(known) <= 300 else f"{known[:297]}..."

    def convert(value: str | int) -> str:
        name = value if isinstance(value, str) else names.get(value)
        if name is None or name not in members:
            raise ValueError(f"{shown(value)} is none of the column's members: {known}")
        return name

    return convert


def fixed(length: int) -> Convert:
    """Exactly `length` bytes, of bytes or of text in UTF-8."""

    def convert(value: str | bytes) -> bytes:
        data = value.encode() if isinstance(value, str) else bytes(value)
        if len(data) != length:
            raise ValueError(
                f"{shown(value)} has {len(data)} bytes: a FixedString({length}) column takes just "
                f"{length}; a String any number"
            )
        return data

    return convert


def ipv4(value: str) -> ipaddress.IPv4Address:
    """The address that a text is."""
    try:
        return ipaddress.IPv4Address(value)
    except ValueError:
        raise ValueError(f"{shown(value)} is no IPv4 address like 10.0.0.1") from None


def ipv6(value: str) -> ipaddress.IPv6Address:
    """The address that a text is."""
    try:
        address = ipaddress.IPv6Address(value)
    except ValueError:
        address = None
    if address is None or address.scope_id is not None:
        raise ValueError(
            f"{shown(value)} is no IPv6 address like 2001:db8::1 (::ffff:10.0.0.1 for one of IPv4)"
        )
    return address


def parsed_uuid(value: str) -> uuid.UUID:
    """The UUID that a text is."""
    try:
        found = uuid.UUID(value)
    except ValueError:
        found = None
    if found is None or str(found) != value.lower():
        raise ValueError(f"{shown(value)} is no UUID like 12345678-1234-5678-1234-567812345678")
    return found


def checked_uuid(value: uuid.UUID) -> uuid.UUID:
    """The UUID itself."""
    if not isinstance(value, uuid.UUID):
        raise TypeError(f"{shown(value)} is no UUID")
    return value


def blob_text(value: Blob) -> str:
    """A blob's path, or its bytes as a `data:` URL."""
    if value.path is not None:
        return value.path
    return "data:;base64," + base64.b64encode(value.inline or b"").decode()
