"""A table follows its row type, whichever worker is first, and nothing that is stored is lost."""

from __future__ import annotations

import asyncio
import datetime
import decimal
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.column import Column
from mqinfer.errors import ConflictError
from mqinfer.tables.migrate import ensure_table
from mqinfer.tables.tables import same_type, widens
from tests.support.rowtypes import row, write


class Box(msgspec.Struct, frozen=True):
    left: int
    label: str = ""


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
