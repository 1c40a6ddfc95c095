"""Convert: how a column's values become what is sent, built once from its type, part by part.

A conversion is chosen for what the field holds (a `str`, a `Decimal`) and for what the column is
(`UUID`, `Decimal(10, 2)`), and lists, maps and tuples are made of those of their parts. A pair of
which no value could be kept is refused here, at the start; what only some values can is judged
value by value.
"""

from __future__ import annotations

import datetime
import decimal
import re
import uuid
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from mqinfer.blob import Blob
from mqinfer.tables import values
from mqinfer.tables.types import Type
from mqinfer.tables.values import ByColumn, Convert

_KINDS: dict[type, str] = {
    str: "String, FixedString, an Enum, UUID, IPv4 or IPv6",
    bytes: "String or FixedString",
    bool: "Bool or an integer",
    int: "an integer, a float, Decimal, an Enum or Bool",
    float: "a float, an integer or Decimal",
    decimal.Decimal: "Decimal",
    datetime.date: "Date32 or Date",
    datetime.datetime: "DateTime64 or DateTime",
    uuid.UUID: "UUID",
    Blob: "String",
}
# Outside of these ClickHouse moves a day silently to the nearest end, or shows another one.
_DAYS = {
    "Date": (datetime.date(1970, 1, 1), datetime.date(2149, 6, 6)),
    "Date32": (datetime.date(1900, 1, 1), datetime.date(2299, 12, 31)),
}
# Seconds since the epoch: 1900 to 2299, or as far as the bits go.
_FIRST_SECOND, _END_SECOND = -2_208_988_800, 10_413_792_000


def whole_column(convert: Convert | None, column: list[Any]) -> list[Any]:
    """A column converted, in the quickest way there is."""
    if convert is None:
        return column
    if isinstance(convert, ByColumn):
        return convert.column(column)
    return list(map(convert, column))


def of_scalar(source: type, wanted: Type) -> Convert | None:
    """The conversion of a plain value; None where it is sent as it is.

    Args:
        source: what the field holds; one of str, bytes, bool, int, float, Decimal, date,
            datetime, UUID, Blob.
        wanted: the column's type.

    Raises:
        ValueError: none of its values could be kept; says which types there are for them.
    """
    column = wanted.plain
    number = re.fullmatch(r"(U?)Int(\d+)", column.name)
    if number and source in (int, float, bool):
        bits = int(number[2])
        whole = values.Whole(
            *((0, 2**bits - 1) if number[1] else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1))
        )
        of_number: dict[type, Convert] = {int: whole, float: values.integral(whole), bool: int}
        return of_number[source]
    match column.name:
        case "String":
            of: dict[type, Convert | None] = {str: None, bytes: bytes, Blob: values.blob_text}
            if source in of:
                return of[source]
        case "FixedString" if source in (str, bytes):
            return values.fixed(column.numbers[0])
        case "Enum8" | "Enum16" if source in (str, int):
            return values.member(dict(column.members))
        case "UUID" if source in (str, uuid.UUID):
            return values.parsed_uuid if source is str else values.checked_uuid
        case "IPv4" if source is str:
            return values.ipv4
        case "IPv6" if source is str:
            return values.ipv6
        case "Bool" if source in (bool, int, str):
            return None if source is bool else values.truth
        case "Float64" if source in (int, float):
            return values.exact_float if source is int else None
        case "Float32" if source in (int, float):
            return values.exact_single if source is int else values.Single()
        case "Decimal" if source in (decimal.Decimal, int, float):
            return values.Scaled(*column.numbers)
        case "Date" | "Date32" if source is datetime.date:
            return values.Days(*_DAYS[column.name])
        case "DateTime" if source is datetime.datetime:
            return values.Ticks(0, 0, 2**32)
        case "DateTime64" if source is datetime.datetime:
            (scale,) = column.numbers
            most = (2**63 - 1) // 10**scale
            return values.Ticks(scale, _FIRST_SECOND, min(_END_SECOND, most))
    raise ValueError(f"its Column must be a kind of {_KINDS[source]}")


def after(first: Convert | None, then: Convert | None) -> Convert | None:
    """One conversion after another."""
    if first is None or then is None:
        return first or then
    return _After(first, then)


class _After:
    def __init__(self, first: Convert, then: Convert):
        self._first, self._then = first, then

    def __call__(self, value: Any) -> Any:
        return self._then(self._first(value))

    def column(self, column: list[Any]) -> list[Any]:
        return whole_column(self._then, whole_column(self._first, column))


class Maybe:
    """A conversion of values that may be missing."""

    def __init__(self, convert: Convert):
        self._convert = convert

    def __call__(self, value: Any) -> Any:
        """One value, or None."""
        return None if value is None else self._convert(value)

    def column(self, column: list[Any]) -> list[Any]:
        """A column."""
        there = [value for value in column if value is not None]
        converted = whole_column(self._convert, there)
        if converted is there:
            return column
        following = iter(converted)
        return [None if value is None else next(following) for value in column]


def of_array(item: Convert | None) -> Convert:
    """The conversion of lists and the like, of that of what they hold."""
    if item is None:
        return list
    return lambda value: whole_column(item, list(value))


def of_map(key: Convert | None, value: Convert | None) -> Convert | None:
    """The conversion of dictionaries."""
    if key is None and value is None:
        return None

    def convert(mapping: Any) -> dict[Any, Any]:
        keys = whole_column(key, list(mapping.keys()))
        made = dict(zip(keys, whole_column(value, list(mapping.values())), strict=True))
        if len(made) < len(keys):
            raise ValueError(f"two keys of {values.shown(mapping)} are one in the column")
        return made

    return convert


def of_tuple(get: Convert, items: Sequence[Convert | None]) -> Convert:
    """The conversion of tuples and structs; `get` gives their parts."""
    if all(item is None for item in items):
        return get
    each = [item or _same for item in items]
    return lambda value: tuple(f(part) for f, part in zip(each, get(value), strict=True))


def of_ndarray(depth: int, items: Convert | None) -> Convert:
    """The conversion of NumPy arrays of `depth` dimensions; `items` is that of their lists."""

    def convert(value: Any) -> Any:
        if value.ndim != depth:
            raise ValueError(
                f"an array of {value.ndim} dimensions where the column holds {depth}; declare it "
                'with Column("Array(Array(Float32))") for two'
            )
        return value.tolist() if items is None else items(value.tolist())

    return convert


def of_fields(names: Sequence[str]) -> Convert:
    """What reads the fields of a struct, as a tuple."""
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda value: (get(value),)


def _same(value: Any) -> Any:
    return value
