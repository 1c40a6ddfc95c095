r"""From the fields of a row type to ClickHouse columns: types, and values ready to be sent.

Pure. What a column gets is decided once per row type, from the annotation and from the parsed type
of its `Column`, part by part. At run time every conversion (see `convert`) either keeps the value
exactly or raises, so that a row is refused rather than stored as something else.

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
from mqinfer.tables import convert
from mqinfer.tables.types import Type, parse
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
        of: ClickHouse's type.
        convert: from a field's value to what is sent, where they differ; raises ValueError or
            TypeError for a value the column cannot hold.
        type: its text, for statements.
        sent: the text of the type that values are sent as.
    """

    of: Type
    convert: Convert | None = None
    type: str = ""
    sent: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", str(self.of))
        object.__setattr__(self, "sent", self.of.sent)

    @property
    def scalar(self) -> bool:
        """Whether it may be Nullable, in ClickHouse."""
        return self.of.plain.name not in ("Array", "Map", "Tuple")

    @property
    def key(self) -> bool:
        """Whether it may be sorted by."""
        return self.scalar and not self.of.nullable and not self.of.name.startswith("Float")


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
            ValueError, TypeError: some value cannot be stored; and whatever else a value raises.
        """
        return convert.whole_column(self.kind.convert, list(map(self.get, rows)))


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

    def read(self, hint: Any, wanted: Type | None = None) -> Kind:
        """How `hint` is stored: as `wanted`, or as its own type."""
        hint = seen_through(hint)
        origin = typing.get_origin(hint)
        if origin is typing.Annotated:
            return self._annotated(hint, wanted)
        if origin is typing.Union or origin is types.UnionType:
            return self._union(hint, wanted)
        if origin is typing.Literal:
            return self._values(hint, typing.get_args(hint), None, wanted)
        if isinstance(hint, type) and origin is None:
            if issubclass(hint, enum.Enum):
                members = [member.value for member in hint]
                return self._values(hint, members, attrgetter("value"), wanted)
            for base, own in _SCALARS.items():
                if hint is base:
                    source = bytes if hint is bytearray else hint
                    return self._scalar(hint, source, wanted or own)
            if issubclass(hint, msgspec.Struct) or dataclasses.is_dataclass(hint):
                return self._struct(hint, wanted)
        if _is_ndarray(origin or hint):
            return self._ndarray(hint, wanted)
        if origin in _ARRAYS or (origin is tuple and typing.get_args(hint)[1:] == (...,)):
            (inner,) = self._inner(hint, wanted, "Array", 1)
            item = self.read(typing.get_args(hint)[0], inner)
            return Kind(Type("Array", (item.of,)), convert.of_array(item.convert))
        if origin is tuple:
            parts = typing.get_args(hint)
            if not parts or parts == ((),):
                raise self._error(hint, "say of what: tuple[float, ...]")
            inners = self._inner(hint, wanted, "Tuple", len(parts))
            items = [self.read(part, inner) for part, inner in zip(parts, inners, strict=True)]
            return _tuple_kind(items, wanted.names if wanted else (), tuple)
        if origin in _MAPS:
            return self._map(hint, wanted)
        advice = _ADVICE.get(
            hint, 'use a plain type, or say how with Annotated[..., Column("...")]'
        )
        raise self._error(hint, advice)

    def _annotated(self, hint: Any, wanted: Type | None) -> Kind:
        texts = [extra.type for extra in hint.__metadata__ if isinstance(extra, Column)]
        if wanted is None and texts:
            try:
                wanted = parse(texts[-1])
            except ValueError as error:
                raise WiringError(
                    f"{self.owner.__name__}.{self.field}: Column({texts[-1]!r}): {error}"
                ) from None
        return self.read(hint.__origin__, wanted)

    def _inner(
        self, hint: Any, wanted: Type | None, name: str, count: int
    ) -> Sequence[Type | None]:
        """What is wanted of the parts of a container."""
        if wanted is None:
            return (None,) * count
        if wanted.name != name:
            raise self._error(hint, f"its Column must be a kind of {name}, not {wanted}")
        if len(wanted.inner) != count:
            raise self._error(hint, f"it has {count} elements, {wanted} {len(wanted.inner)}")
        return wanted.inner

    def _scalar(self, hint: Any, source: type, wanted: Type) -> Kind:
        try:
            return Kind(wanted, convert.of_scalar(source, wanted))
        except ValueError as error:
            raise self._error(hint, f"{error}, not {wanted}") from None

    def _union(self, hint: Any, wanted: Type | None) -> Kind:
        parts = typing.get_args(hint)
        rest = [part for part in parts if part is not type(None)]
        if len(rest) == len(parts) or len(rest) > 1:
            raise self._error(hint, "use one type, or one type or None")
        kind = self.read(rest[0], wanted)
        if not kind.scalar:
            raise self._error(
                hint, "ClickHouse has no missing list, map or tuple; make it empty by default"
            )
        return _maybe(kind)

    def _values(
        self, hint: Any, values: Sequence[Any], get: Convert | None, wanted: Type | None
    ) -> Kind:
        """An enumeration or Literal: `get` reads a member's value."""
        some = [value for value in values if value is not None]
        if some and all(isinstance(value, str) for value in some):
            kind = self._scalar(hint, str, wanted or Type("LowCardinality", (Type("String"),)))
        elif some and all(type(value) is int for value in some):
            kind = self._scalar(hint, int, wanted or Type("Int64"))
        else:
            raise self._error(hint, "all its values must be str, or all int")
        if len(some) < len(values):
            kind = _maybe(kind)
        return replace(kind, convert=convert.after(get, kind.convert))

    def _map(self, hint: Any, wanted: Type | None) -> Kind:
        inners = self._inner(hint, wanted, "Map", 2)
        parts = typing.get_args(hint)
        key, value = (self.read(part, inner) for part, inner in zip(parts, inners, strict=True))
        if not key.key:
            raise self._error(hint, "its keys must be str or int")
        return Kind(Type("Map", (key.of, value.of)), convert.of_map(key.convert, value.convert))

    def _struct(self, hint: type, wanted: Type | None) -> Kind:
        if hint in self.inside:
            raise self._error(hint, "it holds itself; use a flat list, or str")
        hints = _hints(hint)
        if issubclass(hint, msgspec.Struct):
            names = hint.__struct_fields__
        else:
            names = tuple(f.name for f in dataclasses.fields(hint))  # type: ignore[arg-type]
        if not names:
            raise self._error(hint, "it has no fields")
        inners = self._inner(hint, wanted, "Tuple", len(names))
        if wanted is not None and wanted.names not in ((), names):
            raise self._error(hint, f"its fields are {', '.join(names)}, those of {wanted} are not")
        reader = replace(self, inside=(*self.inside, hint))
        items = [reader.read(hints[n], inner) for n, inner in zip(names, inners, strict=True)]
        return _tuple_kind(items, wanted.names if wanted else names, convert.of_fields(names))

    def _ndarray(self, hint: Any, wanted: Type | None) -> Kind:
        import numpy as np

        arguments = typing.get_args(hint)
        scalars = [a for argument in arguments[1:] for a in typing.get_args(argument)]
        if len(scalars) != 1 or not isinstance(scalars[0], type):
            raise self._error(hint, "name its dtype: numpy.typing.NDArray[np.float32]")
        try:
            dtype: np.dtype[Any] = np.dtype(scalars[0])
            own = Type(_NUMPY[dtype.kind + str(dtype.itemsize)])
        except (TypeError, KeyError):
            raise self._error(hint, "its dtype must be a float, an integer or bool") from None
        shape = typing.get_args(arguments[0])
        depth = len(shape) if shape and ... not in shape else 1
        item: Type | None = own
        if wanted is not None:
            depth, item = 0, wanted
            while item is not None and item.name == "Array":
                depth, (item,) = depth + 1, self._inner(hint, item, "Array", 1)
            if not depth:
                raise self._error(hint, f"its Column must be a kind of Array, not {wanted}")
        assert item is not None
        # What the dtype holds already needs no look at every number.
        items, of = None, item
        if item != own:
            items = self._scalar(hint, _NUMPY_SOURCES[dtype.kind], item).convert
        for _ in range(depth):
            items, of = items and convert.of_array(items), Type("Array", (of,))
        return Kind(of, convert.of_ndarray(depth, items))


def _tuple_kind(items: list[Kind], names: tuple[str, ...], get: Convert) -> Kind:
    of = Type("Tuple", tuple(item.of for item in items), names)
    return Kind(of, convert.of_tuple(get, [item.convert for item in items]))


def _maybe(kind: Kind) -> Kind:
    """A kind whose value may be missing."""
    wrapped = convert.Maybe(kind.convert) if kind.convert is not None else None
    return Kind(kind.of.as_nullable(), wrapped)


def _is_ndarray(kind: Any) -> bool:
    numpy = sys.modules.get("numpy")  # whoever annotates with it has imported it
    return numpy is not None and kind is numpy.ndarray


# The column of each plain type, where nothing else is said.
_SCALARS: dict[type, Type] = {
    str: Type("String"),
    bytes: Type("String"),
    bytearray: Type("String"),
    int: Type("Int64"),
    float: Type("Float64"),
    bool: Type("Bool"),
    datetime.date: Type("Date32"),
    datetime.datetime: Type("DateTime64", numbers=(6,), zone="UTC"),
    uuid.UUID: Type("UUID"),
    decimal.Decimal: Type("Decimal", numbers=(38, 18)),
    Blob: Type("String"),
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
_NUMPY_SOURCES: dict[str, type] = {"i": int, "u": int, "f": float, "b": bool}
