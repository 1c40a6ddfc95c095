r"""From the fields of a row type to ClickHouse columns: types, and values ready to be sent.

Pure. What a column gets is decided once per row type; at run time a column is one `map` over the
rows. Every conversion either keeps the value exactly or raises, so that a row is refused rather
than stored as something else (decimals alone are rounded to their column's scale).

| annotation | column |
|---|---|
| `str`, `bytes` | `String` |
| `int`, `float`, `bool` | `Int64`, `Float64`, `Bool` |
| `date` | `Date32` |
| `datetime` | `DateTime64(6, 'UTC')`; without a zone it is UTC |
| `UUID`, `Decimal` | `UUID`, `Decimal(38, 18)` |
| enumeration or `Literal` of `str` / of `int` | `LowCardinality(String)` / `Int64` |
| `X \| None` | `Nullable(X)` |
| `list[X]`, `tuple[X, ...]`, `set[X]` | `Array(X)` |
| `tuple[X, Y]`, a `Struct` or dataclass as a field | `Tuple(...)`, with names |
| `dict[K, X]` | `Map(K, X)` |
| `NDArray[np.float32]` | `Array(Float32)`: one dimension, unless the annotation has a shape |
| `Blob` | `String`: its path, or a `data:` URL when the bytes ride in the message |
| `Annotated[X, Column("...")]` | what it says |
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import re
import sys
import types
import typing
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import msgspec

from mqinfer.blob import Blob
from mqinfer.column import Column
from mqinfer.errors import WiringError
from mqinfer.hints import seen_through
from mqinfer.message import Row
from mqinfer.tables import values
from mqinfer.tables.values import Convert

_ARRAYS = (list, set, frozenset, collections.abc.Sequence, collections.abc.Set)
_MAPS = (dict, collections.abc.Mapping)
_ADVICE: dict[Any, str] = {
    Any: "name a type",
    object: "name a type",
    datetime.timedelta: "use float (seconds)",
    datetime.time: "use str, or datetime",
    complex: "use two floats",
    list: "say of what: list[float]",
    tuple: "say of what: tuple[float, ...]",
    dict: "say of what: dict[str, float]",
    msgspec.Raw: "use str, or a Struct",
    type(None): "leave the field out",
}


@dataclass(frozen=True, slots=True)
class Kind:
    """How one Python type is stored.

    Attributes:
        type: ClickHouse's type.
        convert: from a field's value to what is sent, where they differ; raises ValueError or
            TypeError for a value the column cannot hold.
        scalar: whether it may be Nullable, in ClickHouse.
        nullable: whether it is.
        key: whether it may be sorted by.
        bounds: the least and greatest value, of a column of whole numbers.
    """

    type: str
    convert: Convert | None = None
    scalar: bool = True
    nullable: bool = False
    key: bool = True
    bounds: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """One column of a table.

    Attributes:
        name: of the column: the field's name on the wire.
        kind: its type and conversion.
        get: reads the field of a row.
        default: the field's default; `msgspec.NODEFAULT` when it has none.
    """

    name: str
    kind: Kind
    get: Callable[[Any], Any]
    default: Any = msgspec.NODEFAULT

    def values(self, rows: Sequence[Any]) -> list[Any]:
        """The column of `rows`.

        Raises:
            ValueError, TypeError, OverflowError, AttributeError: some value cannot be stored.
        """
        column = list(map(self.get, rows))
        convert = self.kind.convert
        if isinstance(convert, values.ByColumn):
            column = convert.column(column)
        elif convert is not None:
            column = list(map(convert, column))
        if self.kind.bounds is not None:
            least, most = self.kind.bounds
            numbers = column if not self.kind.nullable else [v for v in column if v is not None]
            if numbers and (min(numbers) < least or max(numbers) > most):
                far = min(numbers) if min(numbers) < least else max(numbers)
                raise ValueError(f"{far} is outside {least} to {most}")
        return column


def columns_of(row_type: type[Row]) -> tuple[ColumnSpec, ...]:
    """The columns that the fields of `row_type` become, in their order.

    Raises:
        WiringError: a field's type cannot be a column; says which and what to use.
    """
    hints = _hints(row_type)
    specs = []
    for field in msgspec.structs.fields(row_type):
        kind = _Reader(row_type, field.name).read(hints[field.name])
        if field.encode_name.startswith("_"):
            raise WiringError(
                f"{row_type.__name__}.{field.name}: a column's name must not start with _ "
                "(those are mqinfer's own); rename the field"
            )
        default = field.default
        if default is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        specs.append(ColumnSpec(field.encode_name, kind, attrgetter(field.name), default))
    if not specs:
        raise WiringError(f"{row_type.__name__} has no fields: a table needs at least one column")
    return tuple(specs)


def _hints(owner: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(owner, include_extras=True)
    except NameError as error:
        raise WiringError(
            f"{owner.__name__}: {error}; what its annotations name must be importable from the "
            "top of its module (not under TYPE_CHECKING, not inside a function)"
        ) from None


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads one field's annotation; knows whose it is, for the errors."""

    owner: type
    field: str
    inside: tuple[type, ...] = ()

    def _error(self, hint: Any, advice: str) -> WiringError:
        shown = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
        return WiringError(
            f"{self.owner.__name__}.{self.field}: {shown.replace('typing.', '')} cannot be a "
            f"ClickHouse column: {advice}"
        )

    def read(self, hint: Any) -> Kind:
        hint = seen_through(hint)
        origin = typing.get_origin(hint)
        if origin is typing.Annotated:
            return self._annotated(hint)
        if origin is typing.Union or origin is types.UnionType:
            return self._union(hint)
        if origin is typing.Literal:
            return self._values(hint, typing.get_args(hint), None)
        if isinstance(hint, type) and origin is None:
            if issubclass(hint, enum.Enum):
                return self._values(hint, [member.value for member in hint], attrgetter("value"))
            for base, kind in _SCALARS.items():
                if hint is base:
                    return kind
            if issubclass(hint, msgspec.Struct) or dataclasses.is_dataclass(hint):
                return self._struct(hint)
        if _is_ndarray(origin or hint):
            return self._ndarray(hint)
        if origin in _ARRAYS or (origin is tuple and typing.get_args(hint)[1:] == (...,)):
            return self._array(self.read(typing.get_args(hint)[0]))
        if origin is tuple:
            return self._tuple(hint, [self.read(part) for part in typing.get_args(hint)])
        if origin in _MAPS:
            return self._map(hint)
        advice = _ADVICE.get(
            hint, 'use a plain type, or say how with Annotated[..., Column("...")]'
        )
        raise self._error(hint, advice)

    def _annotated(self, hint: Any) -> Kind:
        wanted = [extra for extra in hint.__metadata__ if isinstance(extra, Column)]
        if not wanted:
            return self.read(hint.__origin__)
        kind = self.read(hint.__origin__)
        text = wanted[-1].type
        nullable = re.match(r"(LowCardinality\()?Nullable\(", text) is not None
        if kind.nullable and not nullable:
            text, nullable = _nullable(text), True
        convert = kind.convert
        if re.match(r"(Nullable\()?(Decimal|Date)", kind.type):
            convert = _optional(self._scaled(hint, kind.type, text), kind.nullable)
        elif _is_ndarray(typing.get_origin(plain := seen_through(hint.__origin__)) or plain):
            convert = values.flat(text.count("Array("))
        key = not nullable and not re.match(r"(Array|Map|Tuple|Float|BFloat|JSON|Nested)", text)
        return replace(
            kind, type=text, convert=convert, nullable=nullable, key=key, bounds=_bounds(text)
        )

    def _scaled(self, hint: Any, own: str, wanted: str) -> Convert:
        """The conversion to another scale: what is sent is a number of the column's own units."""
        if "Decimal" in own:
            scale = re.search(r"Decimal(?:\(\d+,|\d+\()\s*(\d+)\)", wanted)
            if scale:
                return values.rounded(int(scale[1]))
        elif "DateTime" in own:
            if scale := re.search(r"\bDateTime64\((\d)", wanted):
                return values.Ticks(int(scale[1]))
            if re.search(r"\bDateTime\b", wanted):
                return values.Ticks(0)
        elif re.search(r"\bDate(32)?\b", wanted):
            return values.Days()
        raise self._error(hint, f"its Column must be a kind of {own.partition('(')[0]}")

    def _union(self, hint: Any) -> Kind:
        parts = typing.get_args(hint)
        rest = [part for part in parts if part is not type(None)]
        if len(rest) == len(parts) or len(rest) > 1:
            raise self._error(hint, "use one type, or one type or None")
        kind = self.read(rest[0])
        if kind.nullable:
            return kind
        if not kind.scalar:
            raise self._error(
                hint, "ClickHouse has no missing list, map or tuple; make it empty by default"
            )
        return replace(
            kind,
            type=_nullable(kind.type),
            convert=_optional(kind.convert, True),
            nullable=True,
            key=False,
        )

    def _values(self, hint: Any, values: Sequence[Any], convert: Convert | None) -> Kind:
        some = [value for value in values if value is not None]
        if some and all(isinstance(value, str) for value in some):
            kind = Kind("LowCardinality(String)", convert)
        elif some and all(type(value) is int for value in some):
            kind = replace(_SCALARS[int], convert=convert)
        else:
            raise self._error(hint, "all its values must be str, or all int")
        if len(some) < len(values):
            kind = replace(kind, type=_nullable(kind.type), nullable=True, key=False)
        return kind

    def _array(self, item: Kind) -> Kind:
        convert = item.convert
        return Kind(
            f"Array({item.type})",
            list if convert is None else lambda value: [convert(part) for part in value],
            scalar=False,
            key=False,
        )

    def _tuple(self, hint: Any, items: list[Kind]) -> Kind:
        if not items or any(item is None for item in items):
            raise self._error(hint, "say of what: tuple[float, ...]")
        return _tuple_kind([item.type for item in items], items, tuple)

    def _map(self, hint: Any) -> Kind:
        key, value = (self.read(part) for part in typing.get_args(hint))
        if not key.key or not key.scalar or key.nullable:
            raise self._error(hint, "its keys must be str or int")
        of_key, of_value = key.convert or _same, value.convert or _same
        plain = key.convert is None and value.convert is None
        return Kind(
            f"Map({key.type}, {value.type})",
            None if plain else lambda v: {of_key(k): of_value(x) for k, x in v.items()},
            scalar=False,
            key=False,
        )

    def _struct(self, hint: type) -> Kind:
        if hint in self.inside:
            raise self._error(hint, "it holds itself; use a flat list, or str")
        hints = _hints(hint)
        if issubclass(hint, msgspec.Struct):
            names = hint.__struct_fields__
        else:
            names = tuple(f.name for f in dataclasses.fields(hint))  # type: ignore[arg-type]
        if not names:
            raise self._error(hint, "it has no fields")
        reader = replace(self, inside=(*self.inside, hint))
        items = [reader.read(hints[name]) for name in names]
        get = attrgetter(*names)
        return _tuple_kind(
            [f"{quoted(name)} {item.type}" for name, item in zip(names, items, strict=True)],
            items,
            get if len(names) > 1 else lambda value: (get(value),),
        )

    def _ndarray(self, hint: Any) -> Kind:
        import numpy as np

        arguments = typing.get_args(hint)
        scalars = [a for argument in arguments[1:] for a in typing.get_args(argument)]
        if len(scalars) != 1 or not isinstance(scalars[0], type):
            raise self._error(hint, "name its dtype: numpy.typing.NDArray[np.float32]")
        try:
            dtype: np.dtype[Any] = np.dtype(scalars[0])
            item = _NUMPY[dtype.kind + str(dtype.itemsize)]
        except (TypeError, KeyError):
            raise self._error(hint, "its dtype must be a float, an integer or bool") from None
        shape = typing.get_args(arguments[0])
        depth = len(shape) if shape and ... not in shape else 1
        return Kind(
            "Array(" * depth + item + ")" * depth, values.flat(depth), scalar=False, key=False
        )


def _tuple_kind(parts: list[str], items: list[Kind], get: Convert) -> Kind:
    converts = [item.convert or _same for item in items]
    plain = all(item.convert is None for item in items)

    def convert(value: Any) -> tuple[Any, ...]:
        return tuple(f(part) for f, part in zip(converts, get(value), strict=True))

    return Kind(f"Tuple({', '.join(parts)})", get if plain else convert, scalar=False, key=False)


def _bounds(kind: str) -> tuple[int, int] | None:
    found = re.fullmatch(r"(?:Nullable\()?(U?)Int(\d+)\)?", kind)
    if found is None:
        return None
    bits = int(found[2])
    return (0, 2**bits - 1) if found[1] else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _nullable(kind: str) -> str:
    inner = re.fullmatch(r"LowCardinality\((.*)\)", kind)
    return f"LowCardinality(Nullable({inner[1]}))" if inner else f"Nullable({kind})"


def _optional(convert: Convert | None, nullable: bool) -> Convert | None:
    if convert is None or not nullable:
        return convert
    return lambda value: None if value is None else convert(value)


def _same(value: Any) -> Any:
    return value


def _is_ndarray(kind: Any) -> bool:
    numpy = sys.modules.get("numpy")  # whoever annotates with it has imported it
    return numpy is not None and kind is numpy.ndarray


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


_SCALARS: dict[type, Kind] = {
    str: Kind("String"),
    bytes: Kind("String", bytes),
    bytearray: Kind("String", bytes),
    int: Kind("Int64", bounds=_bounds("Int64")),
    float: Kind("Float64", key=False),
    bool: Kind("Bool"),
    datetime.date: Kind("Date32", values.Days()),
    datetime.datetime: Kind("DateTime64(6, 'UTC')", values.Ticks(6)),
    uuid.UUID: Kind("UUID", values.checked_uuid),
    decimal.Decimal: Kind("Decimal(38, 18)", values.rounded(18)),
    Blob: Kind("String", values.blob_text),
}
_NUMPY = {
    **{
        f"{sign}{size}": f"{name}{size * 8}"
        for sign, name in (("i", "Int"), ("u", "UInt"))
        for size in (1, 2, 4, 8)
    },
    "f2": "Float32",
    "f4": "Float32",
    "f8": "Float64",
    "b1": "Bool",
}
