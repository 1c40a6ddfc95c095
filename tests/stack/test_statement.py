"""Where the data of an INSERT begins: the bytes ClickHouse's own parser would take."""

import pytest

from mqinfer.stack.clickhouse.statement import find_insert, output_format


@pytest.mark.parametrize(
    ("query", "statement", "format_", "data"),
    [
        (b"INSERT INTO t FORMAT Native\n\x00\xff", "INSERT INTO t ", "Native", b"\x00\xff"),
        (b"insert into t (a, b) format CSV 1,2\n", "insert into t (a, b) ", "CSV", b"1,2\n"),
        (b"INSERT INTO t FORMAT TSV\n\n1\n", "INSERT INTO t ", "TSV", b"\n1\n"),
        (b"INSERT INTO t FORMAT TSV \r\n1\n", "INSERT INTO t ", "TSV", b"1\n"),
        (b"INSERT INTO t VALUES (1)", "INSERT INTO t ", "Values", b" (1)"),
        (b"/* FORMAT X */ INSERT INTO t -- FORMAT Y\nFORMAT CSV\n1", None, "CSV", b"1"),
        (b"INSERT INTO `a FORMAT b` FORMAT CSV\n1", "INSERT INTO `a FORMAT b` ", "CSV", b"1"),
        (b"INSERT INTO db.format (`values`) FORMAT CSV\n1", None, "CSV", b"1"),
        (b"INSERT INTO t SETTINGS x = 'FORMAT', y = 1 FORMAT CSV\n1", None, "CSV", b"1"),
        (b"INSERT INTO FUNCTION file('FORMAT Z') FORMAT CSV\n1", None, "CSV", b"1"),
        (b"INSERT INTO t (a, b)", "INSERT INTO t (a, b)", "Values", b""),
        (b"INSERT INTO t", "INSERT INTO t", "Values", b""),
    ],
)
def test_insert_with_data(query: bytes, statement: str | None, format_: str, data: bytes) -> None:
    found = find_insert(query)
    assert found is not None
    assert (found.format, query[found.data_start :]) == (format_, data)
    if statement is not None:
        assert found.statement == statement


@pytest.mark.parametrize(
    "query",
    [
        b"",
        b"SELECT 1 FORMAT CSV",
        b"INSERT INTO t SELECT 1 FORMAT CSV",
        b"INSERT INTO t (a) WITH 1 AS x SELECT x",
        b"INSERT INTO t (SELECT 1)",
        b"INSERT INTO t FROM INFILE 'x' FORMAT CSV",
        b"CREATE TABLE insert (a UInt8)",
        b"\xff\xfe",
    ],
)
def test_no_insert_with_data(query: bytes) -> None:
    assert find_insert(query) is None


def test_output_format() -> None:
    assert output_format(b"SELECT 1 FORMAT JSON", "TSV") == "JSON"
    assert output_format(b"SELECT format('FORMAT CSV')", "TSV") == "TSV"
    assert output_format(b"SELECT 1 FORMAT CSV SETTINGS max_threads = 1", "TSV") == "CSV"
