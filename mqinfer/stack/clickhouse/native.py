"""Native blocks as a client's protocol revision has them.

The engine writes them as for revision 0. A client that names its revision (clickhouse-go, Grafana,
clickhouse-connect) expects a block info before each block, and from some revision on a byte before
each column's data that says how they are laid out; to put that in, the end of each column must be
found, which follows from its type.
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache
from typing import NamedTuple

from mqinfer import varint
from mqinfer.stack.clickhouse.errors import Code, EngineError

_CUSTOM_SERIALIZATION = 54454
_OUT_OF_ORDER_BUCKETS = 54480
# Field 1: no overflows; field 2: bucket -1; the end.
_BLOCK_INFO = b"\1\0\2\xff\xff\xff\xff\0"
# With field 3: no buckets.
_LATER_BLOCK_INFO = b"\1\0\2\xff\xff\xff\xff\3\0\0"

_SIZES = {
    **{f"{sign}Int{bits}": bits // 8 for sign in ("", "U") for bits in (8, 16, 32, 64, 128, 256)},
    "Bool": 1, "Nothing": 1, "BFloat16": 2, "Float32": 4, "Float64": 8,
    "Date": 2, "Date32": 4, "DateTime": 4, "DateTime64": 8, "Time": 4, "Time64": 8,
    "Enum8": 1, "Enum16": 2, "IPv4": 4, "IPv6": 16, "UUID": 16,
}  # fmt: skip
# Names for other types, which are laid out like these.
_ALIASES = {
    "Point": "Tuple(Float64, Float64)",
    **dict.fromkeys(("Ring", "LineString"), "Array(Point)"),
    **dict.fromkeys(("Polygon", "MultiLineString"), "Array(Ring)"),
    "MultiPolygon": "Array(Polygon)",
}
_TOKEN = re.compile(r"\s*('(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`|[(),]|[^\s'`(),]+)", re.DOTALL)
_KEYS_OF_ITS_OWN = 1 << 9  # in the flags of a LowCardinality column


class _Unknown(Exception):
    """A type whose data cannot be measured."""


class _Type(NamedTuple):
    name: str
    size: int = 0  # of a value, where it is the same for all
    inner: tuple[_Type, ...] = ()


class NativeBlocks:
    """Turns the engine's blocks into those of a revision.

    Args:
        revision: Of the client's protocol; 0 leaves everything as it is.
    """

    def __init__(self, revision: int) -> None:
        self._revision = revision
        later = revision >= _OUT_OF_ORDER_BUCKETS
        self._info = _LATER_BLOCK_INFO if later else _BLOCK_INFO
        self._custom = b"\0" if revision >= _CUSTOM_SERIALIZATION else b""

    def convert(self, data: bytes, rows: int) -> bytes:
        """Convert whole blocks.

        Args:
            data: Of one block or more.
            rows: How many they have together; totals and extremes are not counted.

        Raises:
            EngineError: A column's type cannot be measured.
        """
        if not self._revision or not data:
            return data
        reader = _Reader(data)
        reader.number()
        alone = rows > 0 and reader.number() == rows
        if alone and not self._custom:
            return self._info + data
        parts: list[bytes] = []
        reader.position = 0
        while reader.position < len(data):
            parts.append(self._info)
            self._block(reader, parts, alone)
        return b"".join(parts)

    def _block(self, reader: _Reader, parts: list[bytes], alone: bool) -> None:
        start = reader.position
        columns, rows = reader.number(), reader.number()
        for column in range(1, columns + 1):
            reader.skip(reader.number())
            type_name = reader.text()
            parts += [reader.data[start : reader.position], self._custom]
            start = reader.position
            if rows == 0:
                continue
            try:
                kind = _parse(type_name)
                reader.prefix(kind)
                reader.values(kind, rows)
            except _Unknown as error:
                # The last column of a block that is alone needs no measuring.
                if not (alone and column == columns):
                    raise EngineError(
                        f"Columns of type {error} cannot be sent here to a client of protocol "
                        f"{self._revision} beside others: select it alone or last, or as String.",
                        Code.NOT_IMPLEMENTED,
                    ) from error
                reader.position = len(reader.data)
        parts.append(reader.data[start : reader.position])


class _Reader:
    """Walks over the engine's bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def number(self) -> int:
        """Read a variable-length integer."""
        value, self.position = varint.read(self.data, self.position)
        return value

    def skip(self, size: int) -> None:
        """Pass over bytes."""
        self.position += size

    def text(self) -> str:
        """Read a string."""
        size = self.number()
        self.position += size
        return self.data[self.position - size : self.position].decode()

    def _long(self) -> int:
        (value,) = struct.unpack_from("<Q", self.data, self.position)
        self.position += 8
        return int(value)

    def prefix(self, kind: _Type) -> None:
        """Pass over what a column says once before all data."""
        if kind.name in ("LowCardinality", "Variant"):
            self.skip(8)
        if kind.name != "LowCardinality":
            for inner in kind.inner:
                self.prefix(inner)

    def values(self, kind: _Type, rows: int) -> None:
        """Pass over the data of a column."""
        if kind.size:
            self.skip(rows * kind.size)
            return
        match kind.name:
            case "String":
                self._strings(rows)
            case "Nullable":
                self.skip(rows)
                self.values(kind.inner[0], rows)
            case "Array" | "Map":
                self.skip(8 * (rows - 1) if rows else 0)
                count = self._long() if rows else 0
                for inner in kind.inner:
                    self.values(inner, count)
            case "Tuple":
                for inner in kind.inner:
                    self.values(inner, rows)
                if not kind.inner:
                    self.skip(rows)
            case "LowCardinality":
                if rows:
                    self._low_cardinality(kind.inner[0])
            case _:  # Variant
                which = self.data[self.position : self.position + rows]
                self.skip(rows)
                for number, inner in enumerate(kind.inner):
                    self.values(inner, which.count(number))

    def _strings(self, rows: int) -> None:
        data, position = self.data, self.position
        for _ in range(rows):
            size = data[position]
            position += 1
            if size >= 0x80:
                self.position = position - 1
                size = self.number()
                position = self.position
            position += size
        self.position = position

    def _low_cardinality(self, kind: _Type) -> None:
        flags = self._long()
        if flags & _KEYS_OF_ITS_OWN:
            self.values(kind.inner[0] if kind.name == "Nullable" else kind, self._long())
        self.skip(self._long() << (flags & 0xFF))


@lru_cache(1024)
def _parse(text: str) -> _Type:
    found = _TOKEN.findall(text)
    kind, _ = _read(found, 0)
    return kind


def _read(found: list[str], position: int) -> tuple[_Type, int]:
    """Read the type that begins at a token; gives the position behind it as well."""
    name = found[position]
    position += 1
    arguments: list[list[str]] = []
    if position < len(found) and found[position] == "(":
        depth, arguments = 0, [[]]
        while True:
            token = found[position]
            position += 1
            depth += (token == "(") - (token == ")")
            if depth == 0:
                break
            if token == "," and depth == 1:
                arguments.append([])
            elif not (token == "(" and depth == 1):
                arguments[-1].append(token)
    return _make(name, [argument for argument in arguments if argument]), position


def _make(name: str, arguments: list[list[str]]) -> _Type:
    if name in _ALIASES:
        return _parse(_ALIASES[name])
    if name in _SIZES:
        return _Type(name, _SIZES[name])
    if name.startswith("Interval"):
        return _Type(name, 8)
    match name:
        case "String":
            return _Type(name)
        case "FixedString":
            return _Type(name, int(arguments[0][0]))
        case "Decimal":
            digits = int(arguments[0][0])
            return _Type(name, next(size for most, size in _DECIMALS if digits <= most))
        case "Nullable" | "Array" | "LowCardinality" | "Map" | "Variant":
            return _Type(name, 0, tuple(_read(argument, 0)[0] for argument in arguments))
        case "Tuple":
            return _Type(name, 0, tuple(map(_element, arguments)))
        case "Nested":
            inner = _Type("Tuple", 0, tuple(map(_element, arguments)))
            return _Type("Array", 0, (inner,))
        case "SimpleAggregateFunction":
            return _read(arguments[1], 0)[0]
        case _:
            raise _Unknown(name)


_DECIMALS = ((9, 4), (18, 8), (38, 16), (76, 32))


def _element(argument: list[str]) -> _Type:
    """Read an element of a tuple, which may have a name before its type."""
    named = len(argument) > 1 and argument[1] != "("
    return _read(argument, 1 if named else 0)[0]
