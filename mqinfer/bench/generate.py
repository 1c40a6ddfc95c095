"""Generate: plausible messages of a type, from its fields alone."""

from __future__ import annotations

import datetime
import decimal
import re
import typing
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import inspect

from mqinfer.blob import Blob
from mqinfer.codec import array_dtype
from mqinfer.errors import ConfigurationError
from mqinfer.hints import seen_through
from mqinfer.message import Message

_EPOCH = datetime.datetime(2026, 5, 1, 12, tzinfo=datetime.UTC)
_KEYS = 100  # different texts, so that partitions and keys are used as in life
_DEEP = 6  # a type that holds itself ends there
# Texts that patterns are tried with; nobody writes a pattern for prose.
_TEXTS: tuple[Callable[[int], str], ...] = (
    lambda n: f"p{n}",
    lambda n: f"P{n}",
    str,
    lambda n: f"{n:04d}",
    lambda n: f"{n:08d}",
    lambda n: "a" * (1 + n % 8),
    lambda n: "A" * (1 + n % 8),
    lambda n: chr(97 + n % 26) * 2,
    lambda n: chr(65 + n % 26) * 2,
    lambda n: chr(65 + n % 26) * 3,
    lambda n: f"p{n}@example.org",
    lambda n: f"https://example.org/p/{n}",
    lambda n: f"A-{n:04d}",
    lambda n: f"a/{n}.png",
    lambda n: f"10.0.0.{n}",
    lambda n: f"1.{n}.0",
    lambda n: f"#{n:06x}",
    lambda n: f"+49 30 {n:06d}",
    lambda n: str(uuid.UUID(int=n)),
    lambda n: f"{n:032x}",
    lambda n: f"{n:064x}",
    lambda n: (_EPOCH + datetime.timedelta(days=n)).date().isoformat(),
    lambda n: (_EPOCH + datetime.timedelta(hours=n)).isoformat(),
)


class Generator:
    """Makes messages; the n-th of a type is the same each time.

    Args:
        picture: makes the n-th content of a `Blob`.
    """

    def __init__(self, picture: Callable[[int], bytes]):
        self._picture = picture

    def message(self, kind: type[Message], number: int) -> Any:
        """The n-th message of a type.

        Raises:
            ConfigurationError: naming the field that no value is known for.
        """
        return self._struct(kind, number, kind.__name__, 0)

    def _struct(self, kind: Any, number: int, where: str, depth: int) -> Any:
        values: dict[str, Any] = {}
        for field in msgspec.structs.fields(kind):
            optional = field.default is not msgspec.NODEFAULT
            optional = optional or field.default_factory is not msgspec.NODEFAULT
            if optional and depth >= _DEEP:
                continue
            values[field.name] = self._value(
                inspect.type_info(field.type), field.type, number, f"{where}.{field.name}", depth
            )
        return kind(**values)

    def _value(self, info: inspect.Type, hint: Any, number: int, where: str, depth: int) -> Any:
        """A value of a type; `hint` says what `info` leaves out of it, an array's dtype."""
        if depth > 2 * _DEEP:
            raise _unknown(where, "a type that holds itself")
        if isinstance(info, inspect.Metadata):
            return self._value(info.type, hint, number, where, depth)
        if isinstance(info, inspect.CustomType):
            return self._custom(info, hint, number, where)
        if isinstance(info, inspect.UnionType):
            return self._union(info, hint, number, where, depth)
        if isinstance(info, inspect.StructType):
            return self._struct(info.cls, number, where, depth + 1)
        if isinstance(info, (inspect.CollectionType, inspect.TupleType, inspect.DictType)):
            return self._container(info, number, where, depth)
        if isinstance(info, (inspect.DataclassType, inspect.NamedTupleType)):
            fields = {
                field.name: self._value(
                    field.type, None, number, f"{where}.{field.name}", depth + 1
                )
                for field in info.fields
                if field.required
            }
            return info.cls(**fields)
        if isinstance(info, inspect.TypedDictType):
            return {
                field.name: self._value(
                    field.type, None, number, f"{where}.{field.name}", depth + 1
                )
                for field in info.fields
            }
        return _plain(info, number, where)

    def _custom(self, info: inspect.CustomType, hint: Any, number: int, where: str) -> Any:
        if info.cls is Blob:
            return Blob(self._picture(number))
        dtype = array_dtype(info.cls, _bare(hint))
        if dtype is None:
            raise _unknown(where, f"a {info.cls.__name__}")
        import numpy as np

        return np.zeros((8,), dtype)

    def _union(
        self, info: inspect.UnionType, hint: Any, number: int, where: str, depth: int
    ) -> Any:
        members = [part for part in info.types if not isinstance(part, inspect.NoneType)]
        if not members or depth >= _DEEP:
            return None
        chosen = members[number % len(members)]
        hints = [part for part in typing.get_args(_bare(hint)) if part is not type(None)]
        return self._value(chosen, hints[0] if len(hints) == 1 else None, number, where, depth)

    def _container(self, info: Any, number: int, where: str, depth: int) -> Any:
        def item(part: inspect.Type, count: int = 0) -> Any:
            return self._value(part, None, number + count, f"{where}[]", depth + 1)

        if isinstance(info, inspect.TupleType):
            return tuple(item(part) for part in info.item_types)
        least, most = info.min_length or 0, info.max_length
        count = max(least, min(3, 3 if most is None else most))
        if depth >= _DEEP:
            count = least
        if isinstance(info, inspect.DictType):
            return {item(info.key_type, n): item(info.value_type, n) for n in range(count)}
        items = [item(info.item_type, n) for n in range(count)]
        makers = {
            inspect.SetType: set,
            inspect.FrozenSetType: frozenset,
            inspect.VarTupleType: tuple,
        }
        return makers.get(type(info), list)(items)


def _plain(info: inspect.Type, number: int, where: str) -> Any:
    if isinstance(info, inspect.StrType):
        return _text(info, number, where)
    if isinstance(info, (inspect.IntType, inspect.FloatType, inspect.DecimalType)):
        return _number(info, number, where)
    if isinstance(info, (inspect.BytesType, inspect.ByteArrayType, inspect.MemoryViewType)):
        size = max(info.min_length or 0, min(16, info.max_length or 16))
        data = bytes((number + n) % 256 for n in range(size))
        return bytearray(data) if isinstance(info, inspect.ByteArrayType) else data
    if isinstance(info, inspect.EnumType):
        members = list(info.cls)
        return members[number % len(members)]
    if isinstance(info, inspect.LiteralType):
        return info.values[number % len(info.values)]
    moment = _EPOCH + datetime.timedelta(seconds=number)
    if isinstance(info, inspect.DateTimeType):
        return moment.replace(tzinfo=None) if info.tz is False else moment
    if isinstance(info, inspect.TimeType):
        return moment.timetz() if info.tz else moment.time()
    simple: dict[type[inspect.Type], Any] = {
        inspect.BoolType: bool(number % 2),
        inspect.NoneType: None,
        inspect.AnyType: number,
        inspect.DateType: (_EPOCH + datetime.timedelta(days=number % 365)).date(),
        inspect.TimeDeltaType: datetime.timedelta(seconds=number),
        inspect.UUIDType: uuid.UUID(int=number),
        inspect.RawType: msgspec.Raw(b"null"),
    }
    if type(info) not in simple:
        raise _unknown(where, f"a {type(info).__name__.removesuffix('Type')}")
    return simple[type(info)]


def _text(info: inspect.StrType, number: int, where: str) -> str:
    least, most = info.min_length or 0, info.max_length
    for make in _TEXTS:
        text = make(number % _KEYS)
        if len(text) < least and info.pattern is None:
            text = text.ljust(least, "x")
        fits = len(text) >= least and (most is None or len(text) <= most)
        if info.pattern is None and not fits:
            text, fits = text[:most], True
        if fits and (info.pattern is None or re.search(info.pattern, text)):
            return text
    raise _unknown(where, f"a text like {info.pattern!r}")


def _number(
    info: inspect.IntType | inspect.FloatType | inspect.DecimalType, number: int, where: str
) -> Any:
    if isinstance(info, inspect.DecimalType):
        return decimal.Decimal(number % 100)
    step = info.multiple_of or (1 if isinstance(info, inspect.IntType) else 0.125)
    least = info.ge if info.ge is not None else None if info.gt is None else info.gt + step
    most = info.le if info.le is not None else None if info.lt is None else info.lt - step
    if least is None:
        least = 0 if most is None or most >= 0 else most - 10 * step
    if info.multiple_of:
        least = -(-least // step) * step
    count = 10 if most is None else int((most - least) // step) + 1
    if count < 1:
        if isinstance(info, inspect.FloatType) and most is not None and info.gt != info.lt:
            return (least - step + most + step) / 2 if info.gt is not None else least
        raise _unknown(where, "a number within its bounds")
    value = least + step * (number % min(count, 10))
    return int(value) if isinstance(info, inspect.IntType) else float(value)


def _bare(hint: Any) -> Any:
    """What an annotation says without its names and its metadata."""
    hint = seen_through(hint)
    while typing.get_origin(hint) is typing.Annotated:
        hint = seen_through(typing.get_args(hint)[0])
    return hint


def _unknown(where: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{where}: no value is known for {what}; give messages of your own: --messages FILE, or "
        "--sample 1000 of those that were published"
    )
