from __future__ import annotations

import asyncio
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
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.blob import Blob
from mqinfer.column import Column
from mqinfer.errors import ConflictError, WiringError
from mqinfer.message import Row
from mqinfer.ports import Origin
from mqinfer.tables.migrate import ensure_table
from mqinfer.tables.sink import Sink
from mqinfer.tables.sql import literal
from mqinfer.tables.tables import (
    DeadLetterRow,
    frame_values,
    same_type,
    schema_of,
    widens,
)
from mqinfer.tables.types import parse


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


def row(fields: dict[str, Any], *, table: str = "t", order_by: Any = (), **config: Any) -> Any:
    """A row type made of annotations, or of (annotation, default) pairs."""
    plain = {n: v if isinstance(v, tuple) else (v, msgspec.NODEFAULT) for n, v in fields.items()}
    namespace: dict[str, Any] = {"__annotations__": {n: t for n, (t, _) in plain.items()}}
    namespace |= {n: d for n, (_, d) in plain.items() if d is not msgspec.NODEFAULT}
    namespace["__module__"] = __name__
    metaclass: Any = type(Row)
    return metaclass(
        "T", (Row,), namespace, table=table, order_by=order_by, frozen=True, kw_only=True, **config
    )


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


@given(st.lists(st.integers(0, 2**65), max_size=5))
def test_the_first_answer_has_the_greatest_version_all_in_generation_0(times: list[int]) -> None:
    versions = frame_values([Origin(id="i", published=time) for time in times])[-1]
    assert len(versions) == len(times)
    assert all(version >> 44 == 0 <= version for version in versions)
    for time, version in zip(times, versions, strict=True):
        for later, smaller in zip(times, versions, strict=True):
            if time // 1_000_000 < min(later // 1_000_000, 2**44 - 1):
                assert version > smaller


_SIMPLE = st.sampled_from(
    ["Int8", "Int16", "Int64", "UInt8", "UInt16", "UInt64", "Float32", "Float64", "String",
     "Bool", "Date", "Date32", "DateTime64(3, 'UTC')", "DateTime64(6, 'UTC')", "Decimal(18, 4)",
     "Decimal(38, 4)", "UUID", "Enum8('a' = 1)", "Enum8('a' = 1, 'b' = 2)", "Enum8('b' = 1)",
     "Enum16('a' = 1, 'b' = 2)"]
)  # fmt: skip
_TYPES = st.one_of(
    _SIMPLE,
    _SIMPLE.map("Nullable({})".format),
    _SIMPLE.map("Array({})".format),
    st.just("LowCardinality(String)"),
)


@given(_TYPES, _TYPES, _TYPES)
def test_widening_is_an_order(a: str, b: str, c: str) -> None:
    assert widens(a, a)
    assert same_type(a, a.replace(", ", ","))
    if widens(a, b) and widens(b, c):
        assert widens(a, c)
    same = {
        a.replace("LowCardinality(String)", "String"),
        b.replace("LowCardinality(String)", "String"),
    }
    if widens(a, b) and widens(b, a):
        assert len(same) == 1


@given(st.text(st.characters(exclude_categories=["Cs"])))
async def test_text_literals_are_plain_text(text: str) -> None:
    quoted = literal(text)
    assert quoted[0] == quoted[-1] == "'"
    # Unescaped by the rules of ClickHouse it is the text again.
    inner, plain = iter(quoted[1:-1]), ""
    for char in inner:
        assert char != "'"
        plain += {"0": "\0"}.get(escaped := next(inner), escaped) if char == "\\" else char
    assert plain == text


# --- against the server ---------------------------------------------------------------------------


async def write(db: ClickHouse, row_type: Any, *rows: Any, **origin: Any) -> dict[int, str]:
    items = [(r, Origin(id=f"id-{i}", **origin)) for i, r in enumerate(rows)]
    return await Sink(db, row_type).write(items)


async def test_every_literal_is_what_the_server_reads(db: ClickHouse) -> None:
    moment = datetime.datetime(2026, 5, 1, 12, 0, 0, 5, tzinfo=datetime.UTC)
    values: dict[str, tuple[Any, Any, Any]] = {
        "s": (str, "it's \\ \n\t `q` \0 ü", None),
        "i": (int, -5, None),
        "f": (float, float("inf"), None),
        "b": (bool, True, None),
        "y": (bytes, b"\xc3\xbc'\\", "ü'\\"),
        "d": (datetime.date, datetime.date(1999, 12, 31), None),
        "t": (datetime.datetime, moment, None),
        "u": (uuid.UUID, uuid.UUID(int=5), None),
        "m": (decimal.Decimal, decimal.Decimal("1.25"), None),
        "e": (Colour, Colour.BLUE, "blue"),
        "n": (int | None, None, None),
    }
    await ensure_table(db, row({"old": int}))
    await write(db, row({"old": int}), row({"old": int})(old=1))
    wider = row({"old": int, **{n: (t, v) for n, (t, v, _) in values.items()}})
    await ensure_table(db, wider)
    (found,) = await db.query("SELECT * FROM t")
    for name, (_, value, shown) in values.items():
        expected = value if shown is None else shown
        if name == "t":
            expected = moment.replace(tzinfo=None)
            found[name] = found[name].replace(tzinfo=None)
        assert found[name] == expected, name


async def test_many_workers_may_create_one_table(url: str) -> None:
    clients = [ClickHouse(url) for _ in range(6)]
    row_type = row({"a": str, "b": int}, order_by="a")
    await asyncio.gather(*(ensure_table(client, row_type) for client in clients))
    assert not await write(clients[0], row_type, row_type(a="x", b=1))
    wider = row({"a": str, "b": int, "c": (int, 7)}, order_by="a")
    await asyncio.gather(*(ensure_table(client, wider) for client in clients))
    (found,) = await clients[0].query("SELECT a, b, c FROM t")
    assert found == {"a": "x", "b": 1, "c": 7}
    for client in clients:
        await client.close()


class Statements:
    """A database that only counts what would change it."""

    cluster = None

    def __init__(self, db: ClickHouse):
        self.query = db.query
        self.commands: list[str] = []
        self._db = db

    async def command(self, sql: str, parameters: Any = None) -> None:
        self.commands.append(sql)
        await self._db.command(sql, parameters)


async def test_an_equal_table_is_left_alone(db: ClickHouse) -> None:
    everything = row(
        {
            "a": str, "b": Box, "c": dict[str, list[float]], "d": Literal["x", None],
            "e": Annotated[str, Column("Enum8('a b'=1,'c'=2)")], "f": datetime.datetime,
            "g": Annotated[decimal.Decimal, Column("Decimal64(4)")], "h": decimal.Decimal,
        },
        order_by="a",
    )  # fmt: skip
    counting: Any = Statements(db)
    await ensure_table(counting, everything)
    assert len(counting.commands) == 2
    await ensure_table(counting, everything)
    assert len(counting.commands) == 2


async def test_a_table_follows_its_row_type_without_losing_rows(db: ClickHouse) -> None:
    first = row({"a": str, "n": Annotated[int, Column("UInt8")], "gone": str})
    await write(db, first, first(a="1", n=200, gone="kept"))
    second = row({"a": str, "n": int | None, "new": (str, "none yet")})
    assert not await write(db, second, second(a="2", n=-1), stage="other")
    assert await write(db, second, second(a="3", n=None)) == {}
    found = await db.query("SELECT a, n, gone, new FROM t ORDER BY a")
    # All three have the identity id-0 and were published at one time: the last insert stands.
    assert found == [{"a": "3", "n": None, "gone": "", "new": "none yet"}]
    # A worker of the older version still runs, and takes nothing away.
    counting: Any = Statements(db)
    await ensure_table(counting, first)
    assert counting.commands == []
    assert not await write(db, first, first(a="4", n=4, gone="x"), ancestors=("b",))


async def test_an_enum_gains_members_and_nothing_else(db: ClickHouse) -> None:
    def kind(members: str, bits: int = 8) -> Any:
        enumeration = f"Enum{bits}({members})"
        return row(
            {
                "key": Annotated[str, Column(f"Enum8({members})")],
                "one": Annotated[str, Column(enumeration)],
                "maybe": Annotated[str | None, Column(f"Nullable({enumeration})")],
                "many": Annotated[list[str], Column(f"Array({enumeration})")],
                "by_name": Annotated[dict[str, str], Column(f"Map(String, {enumeration})")],
            },
            order_by="key",
        )

    def of(row_type: Any, member: str) -> Any:
        return row_type(key=member, one=member, maybe=member, many=[member], by_name={"x": member})

    old, new = kind("'rust' = 1, 'it\\'s' = 2"), kind("'it\\'s'=2, 'rust'=1, 'blight'=-3")
    assert await write(db, old, of(old, "rust"), of(old, "blight")) == {
        1: "column 'key' (Enum8('rust' = 1, 'it\\'s' = 2)): 'blight' is none of the column's "
        "members: 'rust', \"it's\""
    }
    assert not await write(db, new, of(new, "blight"), of(new, "it's"))
    counting: Any = Statements(db)
    await ensure_table(counting, old)  # a worker of the older version takes nothing away
    assert counting.commands == []
    assert not await write(db, old, of(old, "it's"), ancestors=("b",))
    wide = kind("'rust' = 1, 'it\\'s' = 2, 'blight' = -3", 16)
    await ensure_table(counting, wide)
    assert len(counting.commands) == 5  # all but the key, and the view
    assert not await write(db, wide, of(wide, "rust"))
    found = await db.query("SELECT key, one, maybe, many, by_name FROM t ORDER BY key")
    for shown in found:
        member = shown["key"]
        assert shown == {
            "key": member, "one": member, "maybe": member, "many": [member],
            "by_name": {"x": member},
        }  # fmt: skip
    assert {shown["key"] for shown in found} == {"rust", "blight", "it's"}
    for members in ("'rust' = 2, 'it\\'s' = 1", "'rost' = 1, 'it\\'s' = 2, 'blight' = -3"):
        with pytest.raises(ConflictError, match="may gain members, but not lose, rename or renumb"):
            await ensure_table(db, kind(members))


async def test_what_cannot_be_changed_is_said(db: ClickHouse) -> None:
    await ensure_table(db, row({"a": str, "n": int}, order_by="a"))
    with pytest.raises(
        ConflictError, match=r"table t, column 'n': it has Int64, the field wants S"
    ):
        await ensure_table(db, row({"a": str, "n": str}, order_by="a"))
    with pytest.raises(ConflictError, match="no column 'm', and the field has no default"):
        await ensure_table(db, row({"a": str, "n": int, "m": int}, order_by="a"))
    with pytest.raises(ConflictError, match=r"sorted by \(a\) and order_by wants \(n\)"):
        await ensure_table(db, row({"a": str, "n": int}, order_by="n"))
    await ensure_table(db, row({"k": Annotated[int, Column("Int8")]}, order_by="k", table="k"))
    with pytest.raises(ConflictError, match=r"column 'k': .*that the table is sorted by"):
        await ensure_table(db, row({"k": int}, order_by="k", table="k"))
    await db.command("CREATE TABLE mine (a String) ENGINE = MergeTree ORDER BY a")
    with pytest.raises(ConflictError, match="mine exists in ClickHouse and is not mqinfer's"):
        await ensure_table(db, row({"a": str}, table="mine"))
    await db.command("CREATE VIEW his AS SELECT 1 AS a")
    with pytest.raises(ConflictError, match="his exists"):
        await ensure_table(db, row({"a": str}, table="his"))
    await db.command("CREATE TABLE log__storage (a String) ENGINE = Log")
    with pytest.raises(ConflictError, match="has the engine Log"):
        await ensure_table(db, row({"a": str}, table="log"))


async def test_dead_letters_are_a_table(db: ClickHouse) -> None:
    now = datetime.datetime(2026, 5, 1, tzinfo=datetime.UTC)
    letter = DeadLetterRow("plants", "crop", now, "failed", "boom", "ValueError", "s", 7, 5, "x")
    assert not await write(db, DeadLetterRow, letter)
    (found,) = await db.query("SELECT stage, reason, sequence, size FROM mqinfer_dead_letters")
    assert found == {"stage": "crop", "reason": "boom", "sequence": 7, "size": 0}
