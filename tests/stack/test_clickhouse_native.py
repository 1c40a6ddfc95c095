"""Native blocks of a protocol revision, read back by a reader that knows only those."""

from __future__ import annotations

from typing import Any

import chdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mqinfer.stack import ClickHouseServer
from mqinfer.stack.clickhouse.errors import EngineError
from mqinfer.stack.clickhouse.native import NativeBlocks
from tests.stack.wire import http, server

__all__ = ["server"]

PLAIN = [
    "UInt8", "Int16", "UInt32", "Int64", "UInt128", "Int256", "Float32", "Float64", "Bool",
    "String", "FixedString(3)", "Date", "Date32", "DateTime", "DateTime('UTC')", "UUID",
    "DateTime64(6,'UTC')", "IPv4", "IPv6",
    "Decimal(9,2)", "Decimal(18,2)", "Decimal(38,2)", "Decimal(76,5)",
]  # fmt: skip
ODD = [
    "Enum8('a,(' = 1, 'b\\'' = 2)", "Enum16('`' = -1, 'y' = 1000)", "LowCardinality(String)",
    "LowCardinality(Nullable(String))", "LowCardinality(FixedString(2))", "Map(String, UInt8)",
    "Map(LowCardinality(String), Array(String))", "Tuple(String, UInt8)", "Point", "Ring",
    "Polygon", "MultiPolygon", "Tuple(a String, `b, (c` LowCardinality(String))",
    "Array(Nullable(String))",
    "Array(Array(LowCardinality(Nullable(String))))", "Nullable(Decimal(20, 2))",
]  # fmt: skip
INFO = {54405: b"\1\0\2\xff\xff\xff\xff\0", 54460: b"\1\0\2\xff\xff\xff\xff\0"}
INFO[54488] = b"\1\0\2\xff\xff\xff\xff\3\0\0"


@pytest.fixture(scope="module")
def engine() -> Any:
    connection = chdb._chdb.connect(":memory:")  # type: ignore[attr-defined]
    connection.query("SET allow_suspicious_low_cardinality_types = 1")
    return connection


def kinds() -> st.SearchStrategy[str]:
    simple = st.sampled_from(PLAIN)
    inner = st.one_of(simple, simple.map("Nullable({})".format), st.sampled_from(ODD))
    return st.recursive(
        inner,
        lambda deeper: st.one_of(
            deeper.map("Array({})".format),
            st.lists(deeper, min_size=1, max_size=3).map(
                lambda parts: f"Tuple({', '.join(parts)})"
            ),
            deeper.map("Map(String, {})".format),
        ),
        max_leaves=4,
    )


def random_table(engine: Any, structure: list[str], rows: int) -> None:
    text = ", ".join(f"c{number} {kind}" for number, kind in enumerate(structure))
    text = text.replace("\\", "\\\\").replace("'", "\\'")
    engine.query("DROP TABLE IF EXISTS random")
    engine.query(
        f"CREATE TABLE random ENGINE = Memory AS SELECT * FROM generateRandom('{text}', 1, 20, 3) "
        f"LIMIT {rows} SETTINGS max_block_size = {rows}"
    )


def numbered(number: int) -> bytes:
    written = b""
    while number >= 0x80:
        written += bytes([number & 0x7F | 0x80])
        number >>= 7
    return written + bytes([number])


@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60
)
@given(structure=st.lists(kinds(), min_size=1, max_size=4), rows=st.integers(1, 200))
def test_every_column_gets_its_byte(engine: Any, structure: list[str], rows: int) -> None:
    random_table(engine, structure, rows)
    data = engine.query("SELECT * FROM random", "Native").bytes()
    # A block of several columns is the columns' own blocks, but for the number of them.
    head = len(numbered(1) + numbered(rows))
    alone = [
        engine.query(f"SELECT c{number} FROM random", "Native").bytes()[head:]
        for number in range(len(structure))
    ]
    assert data == numbered(len(structure)) + numbered(rows) + b"".join(alone)
    for revision, info in INFO.items():
        expected = info + numbered(len(structure)) + numbered(rows)
        for column in alone:
            cut = 1 + column[0]  # behind the name
            size, at = column[cut], cut + 1
            if size >= 0x80:
                size, at = size & 0x7F | column[cut + 1] << 7, cut + 2
            custom = b"" if revision < 54454 else b"\0"
            expected += column[: at + size] + custom + column[at + size :]
        for count in (rows, 0):  # known to be one block, or measured
            assert NativeBlocks(revision).convert(data, count) == expected
    assert NativeBlocks(0).convert(data, rows) == data


@pytest.mark.parametrize("revision", [54405, 54460])
@pytest.mark.parametrize(
    "column",
    [
        "CAST(if(number % 2, 'x', NULL), 'Variant(String, Array(UInt8))')", "[]", "NULL", "tuple()",
        "toIntervalDay(number)", "toBFloat16(number)", "map('a', [])", "emptyArrayString()",
        "CAST([(1, 'x')], 'Nested(a UInt8, b String)')", "toTime64('12:00:00', 3)",
    ],
)  # fmt: skip
def test_odd_columns_are_measured(engine: Any, column: str, revision: int) -> None:
    query = f"SELECT {column} AS c, 'end' AS e FROM numbers(3)"
    data = engine.query(query, "Native").bytes()
    converted = NativeBlocks(revision).convert(data * 2, 0)
    assert converted.count(INFO[revision]) == 2
    assert converted.endswith(b"\3end\3end\3end")
    custom = 0 if revision < 54454 else 2 * 2
    assert len(converted) == 2 * (len(data) + 8) + custom


def test_what_cannot_be_measured_may_come_last(engine: Any) -> None:
    state = "sumState(number) AS s"
    query = f"SELECT 1 AS a, {state} FROM numbers(3)"
    data = engine.query(query, "Native").bytes()
    assert len(NativeBlocks(54460).convert(data, 1)) == len(data) + 8 + 2
    assert NativeBlocks(54405).convert(data, 1) == INFO[54405] + data
    with pytest.raises(EngineError, match="AggregateFunction") as refused:
        NativeBlocks(54460).convert(data, 0)
    assert refused.value.code == 48


def test_over_http(server: ClickHouseServer) -> None:
    native = {"default_format": "Native", "client_protocol_version": "54460"}
    answer = http(server, "SELECT 1 AS check, 'abc' AS s", **native)
    assert answer.body == INFO[54460] + b"\2\1\5check\5UInt8\0\1\1s\6String\0\3abc"
    answer = http(server, "SELECT 1 AS check FORMAT Native", client_protocol_version="54405")
    assert answer.body == INFO[54405] + b"\1\1\5check\5UInt8\1"
    assert http(server, "SELECT 1 FORMAT TSV", client_protocol_version="54460").body == b"1\n"
    described = http(server, "DESCRIBE TABLE system.one", **native)
    assert described.body.startswith(INFO[54460])
