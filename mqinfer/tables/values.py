"""Values: what is sent for a field's value, where ClickHouse's column wants another form.

Each function keeps the value exactly or raises ValueError or TypeError.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import uuid
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from mqinfer.blob import Blob

Convert = Callable[[Any], Any]

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_EPOCH_DAY = datetime.date(1970, 1, 1).toordinal()
# Dates outside are moved silently to the nearest end by ClickHouse before 26.
_FIRST_YEAR, _LAST_YEAR = 1900, 2299
_FIRST_DAY = datetime.date(_FIRST_YEAR, 1, 1).toordinal()
_LAST_DAY = datetime.date(_LAST_YEAR, 12, 31).toordinal()


def flat(depth: int) -> Convert:
    """NumPy arrays of `depth` dimensions as lists."""

    def convert(value: Any) -> Any:
        if value.ndim != depth:
            raise ValueError(
                f"an array of {value.ndim} dimensions where the column holds {depth}; declare it "
                'with Column("Array(Array(Float32))") for two'
            )
        return value.tolist()

    return convert


def _in_range(value: datetime.date) -> None:
    if not _FIRST_YEAR <= value.year <= _LAST_YEAR:
        raise ValueError(f"{value} is outside {_FIRST_YEAR} to {_LAST_YEAR}")


@runtime_checkable
class ByColumn(Protocol):
    """A conversion that takes a whole column in less time than its values one by one."""

    def __call__(self, value: Any) -> Any:
        """One value."""

    def column(self, column: list[Any]) -> list[Any]:
        """All values of a column; raises what one of them would."""


class Days:
    """Days since the epoch, of dates."""

    def __call__(self, value: datetime.date) -> int:
        """One value."""
        _in_range(value)
        return value.toordinal() - _EPOCH_DAY

    def column(self, column: list[datetime.date]) -> list[int]:
        """A column, at a fifth of the time."""
        ordinals = list(map(datetime.date.toordinal, column))
        if ordinals and not _FIRST_DAY <= min(ordinals) <= max(ordinals) <= _LAST_DAY:
            return list(map(self, column))  # raises, and says for which
        return [ordinal - _EPOCH_DAY for ordinal in ordinals]


class Ticks:
    """Points in time as units of 10^-scale seconds since the epoch.

    Args:
        scale: digits of the seconds after the point.
    """

    def __init__(self, scale: int):
        self._up: int = 10 ** max(scale - 6, 0)
        self._down: int = 10 ** max(6 - scale, 0)

    def __call__(self, value: datetime.datetime) -> int:
        """One value."""
        _in_range(value)
        if value.tzinfo is None:  # as ClickHouse would read what msgspec writes
            value = value.replace(tzinfo=datetime.UTC)
        return _micros(value - _EPOCH) * self._up // self._down

    def column(self, column: list[datetime.datetime]) -> list[int]:
        """A column, at two thirds of the time."""
        if {value.tzinfo for value in column} != {datetime.UTC}:
            return list(map(self, column))
        micros = [_micros(value - _EPOCH) for value in column]
        if not _FIRST_MICRO <= min(micros) <= max(micros) <= _LAST_MICRO:
            return list(map(self, column))  # raises, and says for which
        if self._up == self._down:
            return micros
        return [micro * self._up // self._down for micro in micros]


def _micros(delta: datetime.timedelta) -> int:
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


_FIRST_MICRO = _micros(datetime.datetime(_FIRST_YEAR, 1, 1, tzinfo=datetime.UTC) - _EPOCH)
_LAST_MICRO = _micros(datetime.datetime(_LAST_YEAR + 1, 1, 1, tzinfo=datetime.UTC) - _EPOCH) - 1


def rounded(scale: int) -> Convert:
    """Decimals with `scale` digits after the point; the driver would cut the rest off."""
    unit = decimal.Decimal(1).scaleb(-scale)
    context = decimal.Context(prec=76, rounding=decimal.ROUND_HALF_EVEN)

    def convert(value: decimal.Decimal) -> decimal.Decimal:
        if not value.is_finite():
            raise ValueError(f"{value} is no decimal number")
        try:
            return value.quantize(unit, context=context)
        except decimal.InvalidOperation:
            raise ValueError(f"{value} has too many digits") from None

    return convert


def blob_text(value: Blob) -> str:
    """A blob's path, or its bytes as a `data:` URL."""
    if value.path is not None:
        return value.path
    return "data:;base64," + base64.b64encode(value.inline or b"").decode()


def checked_uuid(value: uuid.UUID) -> uuid.UUID:
    """The UUID itself."""
    if not isinstance(value, uuid.UUID):
        raise TypeError(f"{value!r} is no UUID")
    return value
