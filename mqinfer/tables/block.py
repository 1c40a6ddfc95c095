"""Block: rows turned into columns for one insert; pure.

A value that its column cannot hold costs its own row and no other.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mqinfer.message import Row
from mqinfer.ports import Origin
from mqinfer.split import Split
from mqinfer.tables.origins import Batch
from mqinfer.tables.tables import INSERTED, TableSchema, frame_values

_FIXED = (
    "Int",
    "UInt",
    "Float",
    "Bool",
    "Date",
    "Decimal",
    "UUID",
    "Enum",
    "LowCardinality(String)",
)
_SAMPLED = (dict(INSERTED)["_models"],)


@dataclass(frozen=True, slots=True)
class Block:
    """Columns of equal length, ready to insert.

    Attributes:
        names: of the columns.
        types: their ClickHouse types.
        data: their values.
        index: for each row, where it stood among the rows given.
        refused: index -> reason, for the rows left out.
    """

    names: tuple[str, ...]
    types: tuple[str, ...]
    data: list[Sequence[Any]]
    index: Sequence[int]
    refused: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.index)

    def only(self, rows: Sequence[int]) -> Block:
        """Some of its rows, in the order given; `refused` is not taken along."""
        if rows == range(len(self)):
            return self
        if isinstance(rows, range):
            data = [column[rows.start : rows.stop] for column in self.data]
            return Block(self.names, self.types, data, self.index[rows.start : rows.stop])
        data = [[column[row] for row in rows] for column in self.data]
        return Block(self.names, self.types, data, [self.index[row] for row in rows])

    def cut(self, max_bytes: int) -> Iterator[tuple[int, int]]:
        """Bounds of parts that hold about `max_bytes` each, and at least one row."""
        if not len(self):
            return
        total = sum(map(_column_size, self.types, self.data))
        if total <= max_bytes:
            yield 0, len(self)
            return
        start = size = 0
        for row, of_row in enumerate(zip(*map(_sizes, self.data), strict=True)):
            row_size = sum(of_row)
            if row > start and size + row_size > max_bytes:
                yield start, row
                start, size = row, 0
            size += row_size
        yield start, len(self)


def build_block(schema: TableSchema, items: Batch | Sequence[tuple[Row, Origin]]) -> Block:
    """The columns of `items`."""
    batch = items if isinstance(items, Batch) else Batch.of(items)
    names = (*(c.name for c in schema.columns), *(name for name, _ in INSERTED))
    types = (*(c.kind.sent for c in schema.columns), *(type_ for _, type_ in INSERTED))
    index: Sequence[int] = range(len(batch))
    refused: dict[int, str] = {}
    while True:
        rows = [batch.rows[i] for i in index] if refused else batch.rows
        data: list[Sequence[Any]] = []
        for spec in schema.columns:
            try:
                data.append(spec.values(rows))
            except Exception:  # noqa: BLE001 - whatever a value raises is that row's fault
                split = Split([index])
                while part := split.take():
                    try:
                        spec.values([batch.rows[i] for i in part])
                    except Exception as error:  # noqa: BLE001
                        for i in split.refused(part):
                            why = str(error) or type(error).__name__
                            refused[i] = f"column {spec.name!r} ({spec.kind.type}): {why}"
                index = [i for i in index if i not in refused]
                break
        else:
            data += frame_values(batch.origins.only(index) if refused else batch.origins)
            return Block(names, types, data, index, refused)


def _column_size(kind: str, column: Sequence[Any]) -> int:
    """About what a column takes on the wire; exact, and quick, for what is ever large."""
    if kind == "String":
        return sum(map(len, column))
    if kind == "Array(String)":
        return sum(map(len, itertools.chain.from_iterable(column)))
    if kind.startswith(_FIXED):
        return 8 * len(column)
    if kind in _SAMPLED:
        sample = column[:: 1 + len(column) // 64]
        return sum(_sizes(sample)) * len(column) // len(sample)
    return sum(_sizes(column))


def _sizes(column: Sequence[Any]) -> list[int]:
    """About what each value takes on the wire."""
    first = next((value for value in column if value is not None), None)
    if first is None or isinstance(first, (bool, int, float)):
        return [8] * len(column)
    return [_size(value) for value in column]


def _size(value: Any) -> int:
    if isinstance(value, (str, bytes)):
        return len(value) + 1
    if isinstance(value, dict):
        return 8 + sum(_size(k) + _size(v) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        if not value:
            return 8
        # Lists are even enough to be judged by one element; only nesting and text is looked at.
        inner = value[0]
        if isinstance(inner, (bool, int, float)) and isinstance(value, list):
            return 8 + 8 * len(value)
        return 8 + sum(_size(part) for part in value)
    return 16
