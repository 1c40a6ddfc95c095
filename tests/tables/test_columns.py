"""What column a field's type is, and which declarations are refused, with what to write instead."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import typing
import uuid
from typing import Annotated, Any, Literal, NewType

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from mqinfer.blob import Blob
from mqinfer.column import Column
from mqinfer.errors import WiringError
from mqinfer.tables.tables import schema_of
from mqinfer.tables.types import parse
from tests.support.rowtypes import row


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Box(msgspec.Struct, frozen=True):
    left: int
    label: str = ""


@dataclasses.dataclass
class Point:
    x: float


Name = NewType("Name", str)


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (str, "String"),
        (Name, "String"),
        (int, "Int64"),
        (float, "Float64"),
        (bool, "Bool"),
        (bytes, "String"),
        (bytearray, "String"),
        (datetime.date, "Date32"),
        (datetime.datetime, "DateTime64(6, 'UTC')"),
        (uuid.UUID, "UUID"),
        (decimal.Decimal, "Decimal(38, 18)"),
        (Colour, "LowCardinality(String)"),
        (Level, "Int64"),
        (Literal["a", "b"], "LowCardinality(String)"),
        (Literal["a", None], "LowCardinality(Nullable(String))"),
        (Literal[1, 2], "Int64"),
        (int | None, "Nullable(Int64)"),
        (typing.Optional[str], "Nullable(String)"),  # noqa: UP045
        (Colour | None, "LowCardinality(Nullable(String))"),
        (list[int], "Array(Int64)"),
        (tuple[float, ...], "Array(Float64)"),
        (set[str], "Array(String)"),
        (list[list[int | None]], "Array(Array(Nullable(Int64)))"),
        (tuple[int, str], "Tuple(Int64, String)"),
        (dict[str, float], "Map(String, Float64)"),
        (
            dict[Colour, list[Box]],
            "Map(LowCardinality(String), Array(Tuple(`left` Int64, `label` String)))",
        ),
        (Box, "Tuple(`left` Int64, `label` String)"),
        (Point, "Tuple(`x` Float64)"),
        (npt.NDArray[np.float32], "Array(Float32)"),
        (np.ndarray[tuple[int, int], np.dtype[np.uint8]], "Array(Array(UInt8))"),
        (Blob, "String"),
        (Annotated[int, msgspec.Meta(ge=0)], "Int64"),
        (Annotated[int, Column("UInt8")], "UInt8"),
        (Annotated[int, Column("UInt8")] | None, "Nullable(UInt8)"),
        (Annotated[int | None, Column("UInt8")], "Nullable(UInt8)"),
        (list[Annotated[float, Column("Float32")]], "Array(Float32)"),
        (Annotated[str, Column("LowCardinality(String)")], "LowCardinality(String)"),
        (
            Annotated[npt.NDArray[np.float32], Column("Array(Array(Float32))")],
            "Array(Array(Float32))",
        ),
    ],
)
def test_a_type_has_a_column(hint: Any, expected: str) -> None:
    assert schema_of(row({"field": hint})).types["field"] == expected


@pytest.mark.parametrize(
    ("hint", "advice"),
    [
        (Any, "name a type"),
        (object, "name a type"),
        (list, "say of what"),
        (dict, "say of what"),
        (datetime.timedelta, "float"),
        (datetime.time, "str"),
        (int | str, "one type"),
        (list[int] | None, "empty"),
        (Box | None, "empty"),
        (dict[float, int], "keys must be str or int"),
        (Literal["a", 1], "all its values"),
        (np.ndarray, "name its dtype"),
        (npt.NDArray[np.complex64], "dtype must be"),
        (Annotated[datetime.date, Column("String")], "kind of Date32"),
        (Annotated[decimal.Decimal, Column("Float64")], "kind of Decimal"),
        (typing.TypedDict("Bag", {"a": int}), "plain type"),
        (Annotated[str, Column("Int64")], "kind of String"),
        (Annotated[list[int], Column("String")], "kind of Array, not String"),
        (list[Annotated[bytes, Column("Date")]], "kind of String or FixedString, not Date"),
        (Annotated[tuple[int, str], Column("Tuple(Int8)")], "2 elements"),
        (Annotated[Box, Column("Tuple(right Int8, label String)")], "fields are left, label"),
    ],
)
def test_a_type_that_cannot_be_a_column_is_named_with_what_to_use(hint: Any, advice: str) -> None:
    with pytest.raises(WiringError, match=rf"T\.field: .*{advice}"):
        schema_of(row({"field": hint}))


@pytest.mark.parametrize(
    ("type_", "advice"),
    [
        ("INTEGER", "write Int32"),
        ("TINYINT", "write Int8"),
        ("BIGINT UNSIGNED", "write UInt64"),
        ("Array(VARCHAR(10))", "write String"),
        ("int32", "did you mean Int32"),
        ("Strin", "did you mean String"),
        ("Nonsense", "'Nonsense' is no ClickHouse type .*use one of"),
        ("JSON", "write String"),
        ("", "use one of"),
        ("Int8 NULL", "no ClickHouse type"),
        ("Array(Int8", "is missing"),
        ("Nullable(Array(Int8))", "empty one stands for none"),
        ("Nullable(LowCardinality(String))", r"write LowCardinality\(Nullable\(String"),
        ("LowCardinality(Int8)", "write Int8"),
        ("DateTime64(10)", "0 to 9 digits"),
        ("DateTime('Mars/Olympus')", "no time zone"),
        ("Decimal(5, 7)", "1 to 76 digits"),
        ("Enum8('a' = 300)", "no room for 'a' = 300"),
        ("Enum8('a' = 1, 'b' = 1)", "twice"),
        ("FixedString(0)", "at least one byte"),
    ],
)
def test_a_type_that_rows_cannot_be_sent_to_is_refused_with_what_to_write(
    type_: str, advice: str
) -> None:
    with pytest.raises(WiringError, match=rf"T\.field: Column\(.*{advice}"):
        schema_of(row({"field": Annotated[str, Column(type_)]}))


@pytest.mark.parametrize(
    ("text", "made", "sent"),
    [
        ("DateTime64", "DateTime64(3)", "DateTime64(3)"),
        ("Decimal64(4)", "Decimal(18, 4)", "Decimal(18, 4)"),
        ("Decimal( 10 )", "Decimal(10, 0)", "Decimal(10, 0)"),
        ("Enum8('b', 'a'=-1)", "Enum8('a' = -1, 'b' = 1)", "String"),
        (r"Array(Enum16('it''s', '\\'))", r"Array(Enum16('it\'s' = 1, '\\' = 2))", "Array(String)"),
        ("Tuple(a Int8,`b c` String)", "Tuple(`a` Int8, `b c` String)", None),
        ("Map(String,Nullable(DateTime('UTC')))", "Map(String, Nullable(DateTime('UTC')))", None),
    ],
)
def test_a_type_is_read_from_its_text(text: str, made: str, sent: str | None) -> None:
    found = parse(text)
    assert (str(found), found.sent) == (made, sent or made)
    assert parse(str(found)) == found


class Tree(msgspec.Struct):
    children: list[Tree]


def test_declarations_that_cannot_be_tables() -> None:
    with pytest.raises(WiringError, match="holds itself"):
        schema_of(row({"field": Tree}))
    with pytest.raises(WiringError, match="must not start with _"):
        schema_of(row({"_id": str}))
    with pytest.raises(WiringError, match="no fields"):
        schema_of(row({}))
    with pytest.raises(WiringError, match="__storage"):
        schema_of(row({"a": int}, table="x__storage"))
    with pytest.raises(WiringError, match=r"order_by names 'a', which is Nullable\(Int64\)"):
        schema_of(row({"a": int | None}, order_by="a"))
    for hint in (float, list[int], Annotated[float, Column("Float32")], Box, dict[str, int]):
        with pytest.raises(WiringError, match="order_by names 'a'"):
            schema_of(row({"a": hint}, order_by="a"))


def test_columns_are_called_as_on_the_wire() -> None:
    schema = schema_of(row({"position_id": str}, order_by="position_id", rename="camel"))
    assert schema.columns[0].name == "positionId"
    assert schema.sorting_key == ("positionId", "_id")
