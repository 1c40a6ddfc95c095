"""Columns: the values that a search filters by, as codes of those that differ. Pure.

A condition is looked at once for each value that differs, and a vector's bit is then looked up by
its code: so any condition costs the same.
"""

from __future__ import annotations

import datetime
import enum
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from mqinfer.errors import SearchError
from mqinfer.hits import Plain
from mqinfer.index import Index
from mqinfer.search.growing import Growing

# Column -> conditions that must all hold: an operator and what it compares with.
Where = dict[str, list[tuple[str, Any]]]
Bits = NDArray[np.bool_]

_COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
}
_KNOWN = ("eq", "ne", "in", *_COMPARED)


def plain(value: Any) -> Plain:
    """A value as it is kept: text, a number, a truth or nothing; all else as text."""
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, datetime.datetime):
        known = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
        return known.astimezone(datetime.UTC).isoformat(timespec="microseconds")
    if isinstance(value, datetime.date):
        return value.isoformat()
    return str(value)


def read(where: Mapping[str, Any] | None, index: Index) -> Where:
    """The conditions of a search, each held against the type of its field.

    Args:
        where: field -> a value it has, a list of values of which it has one, or operators (eq, ne,
            in, gt, ge, lt, le) with what they compare with.
        index: that is searched.

    Raises:
        SearchError: a field is no filter, an operator is unknown, or a value is none of the field.
    """
    found: Where = {}
    for name, told in (where or {}).items():
        if name not in index.filters:
            known = ", ".join(index.filters) or "none"
            raise SearchError(f"index {index.name} has no filter {name!r}; it has {known}")
        if isinstance(told, Mapping):
            conditions = list(told.items())
        elif isinstance(told, (list, tuple, set, frozenset)):
            conditions = [("in", told)]
        else:
            conditions = [("eq", told)]
        found[name] = [(word, _operand(name, word, value, index)) for word, value in conditions]
    return found


def _operand(name: str, word: str, value: Any, index: Index) -> Any:
    if word not in _KNOWN:
        raise SearchError(f"filter {name}: no operator {word!r}; there are {', '.join(_KNOWN)}")
    if word == "in":
        return [_operand(name, "eq", one, index) for one in value]
    kind = next(iter(index.models.values()))
    field = next(one for one in msgspec.structs.fields(kind) if one.name == name)
    try:
        return plain(msgspec.convert(value, field.type))
    except (msgspec.ValidationError, TypeError) as error:
        raise SearchError(f"filter {name}: {error}") from None


class Column:
    """The values of one field, by slot."""

    def __init__(
        self, values: Sequence[Plain] = (), codes: NDArray[np.int32] | None = None
    ) -> None:
        self.values = list(values)  # those that differ, by code
        self.codes = Growing(np.int32, codes)
        self._code: dict[tuple[type, Plain], int] = {
            (type(one), one): code for code, one in enumerate(self.values)
        }

    def add(self, value: Plain) -> None:
        """The value of the next slot."""
        known = (type(value), value)  # 1 and True are two
        code = self._code.get(known)
        if code is None:
            code = self._code[known] = len(self.values)
            self.values.append(value)
        self.codes.add(code)

    def of(self, slot: int) -> Plain:
        """The value of a slot."""
        return self.values[int(self.codes.upto(slot + 1)[slot])]

    def allowed(self, conditions: Sequence[tuple[str, Any]], count: int) -> Bits:
        """Which of the first `count` slots fulfil all conditions."""
        codes = self.codes.upto(count)  # first: values come before their codes
        by_code = np.fromiter(
            (all(_holds(one, word, other) for word, other in conditions) for one in self.values),
            dtype=np.bool_,
        )
        return by_code[codes] if by_code.size else np.zeros(count, np.bool_)

    def only(self, slots: NDArray[np.intp]) -> Column:
        """A column of these slots."""
        return Column(self.values, self.codes.upto(self.codes.count)[slots])


def _holds(value: Plain, word: str, other: Any) -> bool:
    if word == "eq":
        return bool(value == other)
    if word == "ne":
        return bool(value != other)
    if word == "in":
        return value in other
    try:
        return _COMPARED[word](value, other)
    except TypeError:  # what is missing is neither more nor less
        return False
