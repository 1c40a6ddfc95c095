"""Answers of the embedded ClickHouse as they come: bounded memory, limits, errors on the way."""

from __future__ import annotations

import http.client
import json
import re
import tracemalloc
import urllib.request
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import clickhouse_connect
import pytest
from clickhouse_connect.driver.exceptions import ClickHouseError

from mqinfer.stack import ClickHouseServer
from mqinfer.stack.clickhouse.body import read_statement
from tests.stack.wire import address
from tests.stack.wire import http as ask
from tests.stack.wire import own_server as server

__all__ = ["server"]


def high_water(server: ClickHouseServer) -> int:
    """The most memory that the process ever had, in MB."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) // 1024


# Of a gigabyte as well: 7 MB more for short rows, 110 MB for rows of a kilobyte.
@pytest.mark.parametrize(
    ("query", "size"),
    [
        ("SELECT number, toString(number) FROM numbers(24_000_000)", 409_777_780),
        ("SELECT repeat('x', 1000) FROM numbers(400_000)", 400_400_000),
    ],
)
def test_an_answer_larger_than_its_memory(server: ClickHouseServer, query: str, size: int) -> None:
    before = high_water(server)
    got = 0
    with urllib.request.urlopen(address(server), query.encode(), timeout=300) as answer:
        while piece := answer.read(1 << 20):
            got += len(piece)
    assert got == size
    assert high_water(server) - before < 200


def test_a_large_answer_waits_for_its_end_on_the_disk(server: ClickHouseServer) -> None:
    before = high_water(server)
    got = 0
    query = b"SELECT repeat('x', 1000) FROM numbers(400_000)"
    url = address(server, wait_end_of_query="1")
    with urllib.request.urlopen(url, query, timeout=300) as answer:
        assert json.loads(answer.headers["X-ClickHouse-Summary"])["result_rows"] == "400000"
        while piece := answer.read(1 << 20):
            got += len(piece)
    assert got == 400_400_000
    assert high_water(server) - before < 200


def test_a_large_insert_arrives_whole(server: ClickHouseServer) -> None:
    ask(server, "CREATE TABLE large (a String) ENGINE = MergeTree ORDER BY tuple()")
    row = b"x" * 999 + b"\n"
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
    path = "/?query=INSERT%20INTO%20large%20FORMAT%20TSV"
    connection.request("POST", path, (row * 1000 for _ in range(100)), encode_chunked=True)
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"")
    connection.close()
    counted = ask(server, query="SELECT count(), sum(length(a)) FROM large")
    assert counted.body == b"100000\t99900000\n"
    ask(server, "DROP TABLE large SYNC")


@pytest.mark.parametrize("query", [b"", b"INSERT INTO large FORMAT TSV"])
async def test_of_a_large_insert_a_few_pieces_are_in_memory(query: bytes, tmp_path: Path) -> None:
    piece, count = b"x" * 65_535 + b"\n", 2000

    async def body() -> AsyncIterator[bytes]:
        if not query:
            yield b"INSERT INTO large FORMAT TSV\n"
        for _ in range(count):
            yield piece

    async def in_thread(function: Callable[..., object], *arguments: object) -> object:
        return function(*arguments)

    with (tmp_path / "data").open("wb") as file:
        tracemalloc.start()
        statement = await read_statement(query, body(), lambda: file, in_thread)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        size = file.tell()
    assert statement.insert is not None
    assert (statement.path, size) == (file.name, count * len(piece))
    assert peak < 8_000_000


def test_the_first_rows_come_before_the_last_are_made(server: ClickHouseServer) -> None:
    # The query itself would take half an hour.
    query = b"SELECT sleepEachRow(0.01), number FROM numbers(200_000) SETTINGS max_block_size = 10"
    url = address(server, http_response_buffer_size="0", query_id="early")
    with urllib.request.urlopen(url, query, timeout=60) as answer:
        assert answer.read(4) == b"0\t0\n"


FAILS_LATE = "SELECT number, throwIf(number = 3_000_000) FROM numbers(4_000_000)"


@pytest.mark.parametrize("compressed", ["", "gzip"])
def test_an_error_on_the_way_is_told_at_the_end_and_the_connection_breaks(
    server: ClickHouseServer, compressed: str
) -> None:
    url = address(server, enable_http_compression="1")
    request = urllib.request.Request(url, FAILS_LATE.encode(), {"Accept-Encoding": compressed})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200
        tag = answer.headers["X-ClickHouse-Exception-Tag"]
        with pytest.raises(http.client.IncompleteRead) as broken:
            answer.read()
    body = broken.value.partial
    if compressed:
        body = zlib.decompressobj(31).decompress(body)
    rows, mark, told = body.partition(f"\r\n__exception__\r\n{tag}\r\n".encode())
    assert mark
    assert rows.startswith(b"0\t0\n1\t0\n")
    message, _, end = told.rpartition(f" {tag}\r\n__exception__\r\n".encode())
    text, _, size = message.rpartition(b"\n")
    assert (int(size), end) == (len(text) + 1, b"")
    assert text.startswith(b"Code: 395. DB::Exception: ")
    # The next one is answered.
    assert ask(server, "SELECT 1").body == b"1\n"


def test_clickhouse_connect_tells_an_error_on_the_way(server: ClickHouseServer) -> None:
    with (
        clickhouse_connect.get_client(dsn=server.url) as client,
        client.query_rows_stream(FAILS_LATE, settings={"wait_end_of_query": 0}) as rows,
        pytest.raises(ClickHouseError, match="395"),
    ):
        for _ in rows:
            pass


def test_who_waits_for_the_end_gets_the_error_alone(server: ClickHouseServer) -> None:
    answer = ask(server, FAILS_LATE, wait_end_of_query="1")
    assert (answer.status, answer.code) == (500, "395")
    assert answer.body.startswith(b"Code: 395.")


@pytest.mark.parametrize(
    ("settings", "query", "status", "code"),
    [
        ({"max_result_rows": "10"}, "SELECT number FROM numbers(1_000_000)", 500, "396"),
        ({"max_result_bytes": "10"}, "SELECT number FROM numbers(1_000_000)", 500, "396"),
        ({"max_rows_to_read": "10"}, "SELECT count() FROM numbers(1_000_000)", 500, "158"),
        ({"max_bytes_to_read": "10"}, "SELECT sum(number) FROM numbers(1_000_000)", 500, "307"),
        ({"max_execution_time": "1"}, "SELECT sum(sipHash64(number)) FROM system.numbers", 408,
         "159"),
        ({"max_memory_usage": "20000000"}, "SELECT groupArray(number) FROM numbers(30_000_000)",
         500, "241"),
        ({"max_memory_usage": "20000000"}, "SELECT number FROM numbers(10_000_000) ORDER BY rand()",
         500, "241"),
        ({"max_ast_depth": "10"}, "SELECT ((((((((((((1 + 2) + 3) + 4) + 5) + 6) + 7) + 8) + 9) "
         "+ 1) + 1) + 1) + 1)", 400, "167"),
        ({"readonly": "1"}, "CREATE TABLE no (a UInt8) ENGINE = Memory", 500, "164"),
    ],
)  # fmt: skip
def test_limits_hold(
    server: ClickHouseServer, settings: dict[str, str], query: str, status: int, code: str
) -> None:
    answer = ask(server, query, **settings)
    assert (answer.status, answer.code) == (status, code), answer.body


def test_what_a_limit_may_break_off_ends_early(server: ClickHouseServer) -> None:
    limits = {"max_result_rows": "10", "result_overflow_mode": "break", "max_block_size": "10"}
    answer = ask(server, "SELECT number FROM numbers(1_000_000)", **limits)
    assert answer.status == 200
    assert len(answer.body.splitlines()) == 10


def test_the_summary_counts(server: ClickHouseServer) -> None:
    answer = ask(server, "SELECT number FROM numbers(7)")
    assert answer.summary.items() >= {
        "read_rows": 7, "read_bytes": 56, "written_rows": 0, "total_rows_to_read": 7,
        "result_rows": 7,
    }.items()  # fmt: skip
    assert answer.summary["elapsed_ns"] > 0
    assert answer.summary["result_bytes"] >= 56
    answer = ask(server, "SELECT count() FROM numbers(1_000_000)")
    assert (answer.summary["read_rows"], answer.summary["result_rows"]) == (1_000_000, 1)
    ask(server, "CREATE TABLE counted (a UInt64) ENGINE = MergeTree ORDER BY a")
    for statement in ("INSERT INTO counted SELECT number FROM numbers(5)",
                      "INSERT INTO counted VALUES (1), (2), (3), (4), (5)"):  # fmt: skip
        summary = ask(server, statement).summary
        assert (summary["written_rows"], summary["written_bytes"]) == (5, 40)
    assert ask(server, "SHOW TABLES LIKE 'counted'").summary["result_rows"] == 1


def test_progress_in_headers(server: ClickHouseServer) -> None:
    parameters = {
        "query": "SELECT sleepEachRow(0.02) FROM numbers(50)",
        "max_block_size": "1",
        "send_progress_in_http_headers": "1",
        "http_headers_progress_interval_ms": "100",
    }
    with urllib.request.urlopen(address(server, **parameters), timeout=60) as answer:
        told = [json.loads(text) for text in answer.headers.get_all("X-ClickHouse-Progress")]
    read = [int(progress["read_rows"]) for progress in told]
    assert read == sorted(read)
    assert read[-1] == 50
    assert 1 < len(told) <= 20


def test_head_options_and_unknown_paths(server: ClickHouseServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    for method, path, status in (
        ("HEAD", "/ping", 200), ("HEAD", "/?query=SELECT%201", 200), ("OPTIONS", "/", 200),
        ("GET", "/nothing/here", 404),
    ):  # fmt: skip
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == status
        assert (body == b"") == (status == 200)
        if path.startswith("/?"):
            assert answer.headers["X-ClickHouse-Query-Id"]
    assert body.startswith(b"There is no handle /nothing/here")
    connection.close()
