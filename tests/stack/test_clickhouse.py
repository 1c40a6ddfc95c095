"""The embedded ClickHouse over HTTP, as clients of a production server use it."""

import asyncio
import datetime as dt
import gzip
import itertools
import json
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import clickhouse_connect
import lz4.frame
import psutil
import pytest
from backports import zstd
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from mqinfer.stack import ClickHouseServer
from tests.stack.wire import http
from tests.stack.wire import own_server as server

__all__ = ["server"]

_tables = itertools.count()


@pytest.fixture
def client(server: ClickHouseServer) -> Iterator[Client]:
    with clickhouse_connect.get_client(dsn=server.url) as client:
        yield client


@pytest.fixture
def table(client: Client) -> str:
    """A table of its own for the test, with two columns."""
    name = f"t_{next(_tables)}"
    client.command(f"CREATE TABLE {name} (a UInt64, b String) ENGINE = MergeTree ORDER BY a")
    return name


def test_ping_and_the_answer_without_a_query(server: ClickHouseServer) -> None:
    assert http(server, path="/ping").body == b"Ok.\n"
    assert http(server, path="/replicas_status").body == b"Ok.\n"
    assert http(server).body == b"Ok.\n"


def test_many_types_come_back_as_they_went(client: Client) -> None:
    client.command(
        "CREATE TABLE types (s String, l LowCardinality(String), t DateTime64(3, 'UTC'), d Date, "
        "f Array(Float32), u UInt64, n Nullable(Int32), b Bool, e Enum8('no' = 0, 'yes' = 1), "
        "m Map(String, UInt8), x FixedString(3), i UUID) ENGINE = MergeTree ORDER BY s"
    )
    rows = [
        (
            f"s{number} \t\n'\\ ü",
            "red",
            dt.datetime(2024, 5, 6, 7, 8, 9, 123000, tzinfo=dt.UTC),
            dt.date(2024, 5, number + 1),
            [0.5, -1.25],
            2**64 - 1 - number,
            None if number else 7,
            bool(number),
            "yes",
            {"k": number},
            b"abc",
            uuid.UUID(int=number),
        )
        for number in range(3)
    ]
    columns = list("sltdfunbemxi")
    summary = client.insert("types", rows, column_names=columns)
    assert summary.written_rows == 3
    result = client.query(
        "SELECT * FROM types ORDER BY s",
        column_tzs={"t": "UTC"},
        query_formats={"FixedString": "bytes"},
    )
    got = [list(row) for row in result.result_rows]
    for row in got:
        row[2] = row[2].replace(tzinfo=dt.UTC)
    assert got == [list(row) for row in rows]


def test_every_block_of_a_large_insert_arrives(client: Client, table: str) -> None:
    # clickhouse-connect cuts this into several blocks, each a compressed frame of its own.
    count = 250_000
    columns = [list(range(count)), ["x"] * count]
    summary = client.insert(table, columns, column_names=["a", "b"], column_oriented=True)
    assert summary.written_rows == count
    assert client.command(f"SELECT uniqExact(a) FROM {table}") == count


@pytest.mark.parametrize("compression", ["lz4", "zstd", "gzip"])
def test_the_client_may_compress_both_ways(server: ClickHouseServer, compression: str) -> None:
    with clickhouse_connect.get_client(dsn=server.url, compress=compression) as client:
        client.command("CREATE OR REPLACE TABLE packed (a UInt64) ENGINE = MergeTree ORDER BY a")
        client.insert("packed", [[number] for number in range(1000)], column_names=["a"])
        assert client.command("SELECT sum(a) FROM packed") == 499_500
        assert len(client.query("SELECT a FROM packed").result_rows) == 1000


async def test_the_asyncio_client(server: ClickHouseServer) -> None:
    pytest.importorskip("aiohttp")
    client = await clickhouse_connect.get_async_client(dsn=server.url)
    try:
        await client.command("CREATE TABLE later (a UInt64) ENGINE = MergeTree ORDER BY a")
        await client.insert("later", [[1], [2]], column_names=["a"])
        assert (await client.query("SELECT sum(a) FROM later")).result_rows == [(3,)]
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("lz4", lz4.frame.compress),
        ("zstd", zstd.compress),
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
    ],
)
def test_a_compressed_body_of_two_frames(
    server: ClickHouseServer, table: str, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    first, second = f"INSERT INTO {table} FORMAT CSV\n1,x\n".encode(), b"2,y\n"
    # Deflate has no frames.
    body = pack(first + second) if encoding == "deflate" else pack(first) + pack(second)
    answer = http(server, body, {"Content-Encoding": encoding})
    assert answer.status == 200, answer.body
    assert json.loads(answer.headers["x-clickhouse-summary"])["written_rows"] == "2"
    assert http(server, query=f"SELECT count() FROM {table}").body == b"2\n"


def test_a_cut_off_compressed_body_inserts_nothing(server: ClickHouseServer, table: str) -> None:
    body = lz4.frame.compress(f"INSERT INTO {table} FORMAT CSV\n1,x\n".encode())
    answer = http(server, body[:-6], {"Content-Encoding": "lz4"})
    assert answer.status == 500
    assert b"Cannot decompress" in answer.body
    assert http(server, query=f"SELECT count() FROM {table}").body == b"0\n"


@pytest.mark.parametrize("encoding", ["lz4", "zstd", "gzip", "deflate", ""])
def test_the_answer_is_compressed_when_asked(server: ClickHouseServer, encoding: str) -> None:
    unpack: dict[str, Callable[[bytes], bytes]] = {
        "lz4": lz4.frame.decompress,
        "zstd": zstd.decompress,
        "gzip": gzip.decompress,
        "deflate": zlib.decompress,
        "": bytes,
    }
    answer = http(
        server,
        headers={"Accept-Encoding": encoding},
        query="SELECT number FROM numbers(1000)",
        enable_http_compression="1",
    )
    assert answer.headers.get("content-encoding", "") == encoding
    assert len(unpack[encoding](answer.body).splitlines()) == 1000


def test_query_in_the_body_in_the_url_and_in_both(server: ClickHouseServer, table: str) -> None:
    assert http(server, "SELECT 1").body == b"1\n"
    assert http(server, query="SELECT 2").body == b"2\n"
    assert http(server, "+ 1", query="SELECT 2").body == b"3\n"
    assert http(server, b"1\tx\n2\ty\n", query=f"INSERT INTO {table} FORMAT TSV").status == 200
    assert http(server, "(3, 'z')", query=f"INSERT INTO {table} VALUES").status == 200
    assert http(server, "(4, 'z')", query=f"INSERT INTO {table} (a, b)").status == 200
    assert http(server, f"INSERT INTO {table} SELECT 5, 'from select'").status == 200
    rows = http(server, query=f"SELECT groupArray(a) FROM (SELECT a FROM {table} ORDER BY a)")
    assert rows.body == b"[1,2,3,4,5]\n"


def test_formats_by_clause_parameter_and_header(server: ClickHouseServer) -> None:
    answer = http(server, query="SELECT 1 AS x FORMAT JSONEachRow")
    assert (json.loads(answer.body), answer.headers["x-clickhouse-format"]) == (
        {"x": 1},
        "JSONEachRow",
    )
    answer = http(server, query="SELECT 1 AS x, 'a'", default_format="CSV")
    assert (answer.body, answer.headers["x-clickhouse-format"]) == (b'1,"a"\n', "CSV")
    answer = http(server, headers={"X-ClickHouse-Format": "JSONCompact"}, query="SELECT 1 AS x")
    assert json.loads(answer.body)["data"] == [[1]]
    assert answer.headers["content-type"].startswith("application/json")


def test_parameters_are_values_and_never_sql(server: ClickHouseServer, client: Client) -> None:
    text = "it's; DROP TABLE x -- \\ \t tab"
    result = client.query(
        "SELECT {s:String}, {n:UInt8}, {d:Date}", parameters={"s": text, "n": 5, "d": "2024-01-02"}
    )
    assert result.result_rows == [(text, 5, dt.date(2024, 1, 2))]
    answer = http(
        server,
        query="SELECT {a:Array(UInt8)}, {n:Nullable(String)}",
        param_a="[1,2]",
        param_n="\\N",
    )
    assert answer.body == b"[1,2]\t\\N\n"
    assert (
        http(server, query="SELECT {missing:UInt8}").headers["x-clickhouse-exception-code"] == "456"
    )


def test_settings_hold_for_one_query_and_set_for_the_session(server: ClickHouseServer) -> None:
    value = "SELECT getSetting('max_block_size')"
    default = http(server, query=value).body
    assert http(server, query=value, max_block_size="77").body == b"77\n"
    assert http(server, query=value).body == default
    session = {"session_id": "settings"}
    assert http(server, query=value, max_block_size="77", **session).body == b"77\n"
    assert http(server, query=value, **session).body == default
    http(server, "SET max_block_size = 88", **session)
    assert http(server, query=value, max_block_size="77", **session).body == b"77\n"
    assert http(server, query=value, **session).body == b"88\n"
    assert http(server, query=value).body == default
    answer = http(server, query="SELECT 1", no_such_setting="1")
    assert (answer.status, answer.headers["x-clickhouse-exception-code"]) == (404, "115")


def test_a_session_keeps_temporary_tables_and_is_for_one_at_a_time(
    server: ClickHouseServer,
) -> None:
    http(server, "CREATE TEMPORARY TABLE mine (a UInt8)", session_id="one")
    http(server, "INSERT INTO mine VALUES (1)", session_id="one")
    assert http(server, query="SELECT a FROM mine", session_id="one").body == b"1\n"
    assert http(server, query="SELECT a FROM mine", session_id="two").status == 404
    answer = http(server, query="SELECT 1", session_id="unknown", session_check="1")
    assert answer.headers["x-clickhouse-exception-code"] == "372"


def test_the_database_of_the_request(server: ClickHouseServer) -> None:
    http(server, "CREATE DATABASE IF NOT EXISTS `odd ``name`")
    current = "SELECT currentDatabase()"
    assert http(server, query=current, database="odd `name").body == b"odd `name\n"
    assert http(server, query=current, database="odd `name", session_id="d").body == b"odd `name\n"
    assert http(server, query=current, session_id="d").body == b"default\n"
    answer = http(server, query=current, database="nowhere")
    assert (answer.status, answer.headers["x-clickhouse-exception-code"]) == (404, "81")


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("SELEC 1", 400, 62),
        ("SELECT * FROM nowhere", 404, 60),
        ("SELECT nothing", 404, 47),
        ("SELECT throwIf(1)", 500, 395),
        ("SELECT 1; SELECT 2", 400, 62),
        ("INSERT INTO nowhere FORMAT CSV\n1\n", 404, 60),
        ("INSERT INTO FUNCTION null('a UInt8') FORMAT NoSuch\n1\n", 404, 73),
    ],
)
def test_errors_have_code_and_text(
    server: ClickHouseServer, query: str, status: int, code: int
) -> None:
    answer = http(server, query)
    assert answer.headers["x-clickhouse-exception-code"] == str(code)
    assert answer.body.startswith(f"Code: {code}. DB::Exception: ".encode())
    assert answer.status == status


@pytest.mark.parametrize(
    ("format_", "data"),
    [
        ("CSV", b"1,good\n2,good\nbad,x\n"),
        ("JSONEachRow", b'{"a": 1, "b": "x"}\n{"a": "bad"'),
        ("Native", b"no native block at all"),
        ("Values", b"(1, 'x'), (bad, 'y')"),
    ],
)
def test_bad_data_is_refused_as_a_whole(
    server: ClickHouseServer, table: str, format_: str, data: bytes
) -> None:
    answer = http(server, data, query=f"INSERT INTO {table} FORMAT {format_}")
    assert answer.status >= 400
    assert int(answer.headers["x-clickhouse-exception-code"]) > 0
    assert answer.body.startswith(b"Code: ")
    assert http(server, query=f"SELECT count() FROM {table}").body == b"0\n"
    assert http(server, b"1,x\n", query=f"INSERT INTO {table} FORMAT CSV").status == 200


def test_get_changes_nothing(server: ClickHouseServer, table: str) -> None:
    for query in (f"INSERT INTO {table} VALUES (1, 'x')", f"DROP TABLE {table}"):
        answer = http(server, query=query)
        assert (answer.status, answer.headers["x-clickhouse-exception-code"]) == (500, "164")
    assert http(server, query=f"SELECT count() FROM {table}").body == b"0\n"


def test_headers_of_an_answer(server: ClickHouseServer) -> None:
    answer = http(server, query="SELECT 1", query_id="mine")
    assert answer.headers["x-clickhouse-query-id"] == "mine"
    assert answer.headers["x-clickhouse-timezone"]
    assert answer.headers["x-clickhouse-server-display-name"]


def test_what_the_sink_needs(client: Client, server: ClickHouseServer) -> None:
    client.command(
        "CREATE TABLE grades (id String, version UInt64, grade UInt8, _visible UInt8 DEFAULT 1, "
        "double UInt16 MATERIALIZED grade * 2) ENGINE = ReplacingMergeTree(version) ORDER BY id "
        "SETTINGS non_replicated_deduplication_window = 1000"
    )
    client.command("CREATE VIEW shown AS SELECT * FROM grades FINAL WHERE _visible = 1")
    token = {"insert_deduplication_token": "batch-1"}
    rows = [["x", 1, 1], ["y", 1, 2]]
    for _ in range(2):
        client.insert("grades", rows, column_names=["id", "version", "grade"], settings=token)
    assert client.command("SELECT count() FROM grades") == 2
    client.insert("grades", [["x", 2, 3]], column_names=["id", "version", "grade"])
    client.command(
        "INSERT INTO grades (id, version, grade, _visible) "
        "SELECT id, 9, grade, 0 FROM shown WHERE id = 'y'"
    )
    assert client.query("SELECT id, grade FROM shown").result_rows == [("x", 3)]
    assert client.command("SELECT sum(double) FROM grades FINAL WHERE id = 'x'") == 6
    client.command("ALTER TABLE grades ADD COLUMN note String DEFAULT 'none'")
    assert client.command("SELECT any(note) FROM grades") == "none"
    waits = {"async_insert": 1, "wait_for_async_insert": 1}
    client.insert("grades", [["z", 1, 1]], column_names=["id", "version", "grade"], settings=waits)
    assert client.command("SELECT count() FROM shown") == 2
    assert client.query("DESCRIBE TABLE grades").row_count == 6
    assert client.command("SELECT count() FROM system.columns WHERE table = 'grades'") == 6


async def test_inserts_from_many_at_once_all_arrive(server: ClickHouseServer, table: str) -> None:
    def insert(number: int) -> int:
        return http(server, f"{number},x\n", query=f"INSERT INTO {table} FORMAT CSV").status

    statuses = await asyncio.gather(*(asyncio.to_thread(insert, number) for number in range(64)))
    assert statuses == [200] * 64
    assert http(server, query=f"SELECT uniqExact(a) FROM {table}").body == b"64\n"


async def test_rows_survive_a_kill_right_after_the_answer(
    server: ClickHouseServer, table: str
) -> None:
    expected = 0
    for _ in range(3):
        for _ in range(5):
            data = "".join(f"{expected + number},x\n" for number in range(1000))
            assert http(server, data, query=f"INSERT INTO {table} FORMAT CSV").status == 200
            expected += 1000
        server.kill()
        await server.start()
        await server.wait_ready()
        answer = http(server, query=f"SELECT uniqExact(a), count() FROM {table}")
        assert answer.body == f"{expected}\t{expected}\n".encode()


async def test_a_restart_keeps_the_data(server: ClickHouseServer, table: str) -> None:
    http(server, f"INSERT INTO {table} VALUES (1, 'kept')")
    port, pid = server.port, server.pid
    await server.stop()
    assert not server.running
    await server.start()
    await server.wait_ready()
    assert (server.port, server.pid != pid) == (port, True)
    assert http(server, query=f"SELECT b FROM {table}").body == b"kept\n"


async def test_password(tmp_path: Path) -> None:
    server = ClickHouseServer(tmp_path / "data", log=tmp_path / "log", password="s3:cret/@")
    await server.start()
    try:
        await server.wait_ready()
        assert "s3:cret" not in " ".join(psutil.Process(server.pid).cmdline())
        answer = http(server, "SELECT 1")
        assert (answer.status, answer.headers["x-clickhouse-exception-code"]) == (403, "516")
        assert http(server, "SELECT 1", user="other", password="s3:cret/@").status == 403
        assert http(server, "SELECT 1", user="default", password="s3:cret/@").body == b"1\n"
        with clickhouse_connect.get_client(dsn=server.url) as client:
            assert client.command("SELECT 1") == 1
        with pytest.raises(DatabaseError, match="516"):
            clickhouse_connect.get_client(host="127.0.0.1", port=server.port, password="no")
    finally:
        await server.stop()
