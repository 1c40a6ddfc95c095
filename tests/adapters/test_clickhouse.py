from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.errors import BadRows, ConfigurationError, PermissionDenied, TableError, Unavailable
from mqinfer.stack.clickhouse.server import ClickHouseServer
from mqinfer.stack.ports import free_port


@asynccontextmanager
async def answering(reply: bytes | None) -> AsyncIterator[int]:
    """A server that gives every request the same reply, or none at all."""
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if reply is None:
                await gone.wait()
            else:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(reply)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        gone.set()
        server.close()
        await server.wait_closed()


def http(status: str, body: bytes, code: int | None = None) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    if code is not None:
        head += f"X-ClickHouse-Exception-Code: {code}\r\n"
    return head.encode() + b"\r\n" + body


async def test_queries_take_parameters_and_give_dictionaries(db: ClickHouse) -> None:
    text = "it's \\ {x:String} %s \n"
    rows = await db.query(
        "SELECT {t:String} AS t, {n:UInt64} + 1 AS n, {a:Array(String)} AS a",
        {"t": text, "n": 2**63, "a": ["x'", "y"]},
    )
    assert rows == [{"t": text, "n": 2**63 + 1, "a": ["x'", "y"]}]
    assert await db.query("SELECT 1 AS one WHERE 0") == []
    await db.ping()


async def test_inserts_are_stored_once_under_one_token(db: ClickHouse) -> None:
    await db.command(
        "CREATE TABLE t (`odd ``name` String, n Int64) ENGINE = MergeTree ORDER BY n "
        "SETTINGS non_replicated_deduplication_window = 100"
    )
    for token in ("a", "a", "b"):
        await db.insert("t", ("odd `name", "n"), ("String", "Int64"), [["x"], [1]], token=token)
    (found,) = await db.query("SELECT count() AS n FROM t")
    assert found["n"] == 2


async def test_calls_go_side_by_side(db: ClickHouse) -> None:
    results = await asyncio.gather(
        *(db.query("SELECT {i:UInt64} AS i", {"i": i}) for i in range(20))
    )
    assert results == [[{"i": i}] for i in range(20)]


async def test_errors_of_statements_are_one_clear_line(db: ClickHouse) -> None:
    with pytest.raises(TableError, match=r"nothing_here.*UNKNOWN_TABLE") as caught:
        await db.query("SELECT * FROM nothing_here")
    assert "\n" not in str(caught.value)
    assert "version" not in str(caught.value)
    assert "DB::" not in str(caught.value)
    with pytest.raises(TableError, match="Syntax error"):
        await db.command("CREATE TABULAR x")
    with pytest.raises(TableError) as caught:
        await db.insert("nothing_here", ("a",), ("String",), [["x"]], token="t")
    assert not isinstance(caught.value, BadRows)


@pytest.mark.parametrize(
    ("type_", "sent_as", "value"),
    [
        ("UInt8", "UInt8", 256),
        ("UInt8", "String", "abc"),
        ("FixedString(2)", "String", "abc"),
        ("Int64", "Int64", "x"),
        ("Int64", "Int64", None),
        ("UUID", "String", "nonsense"),
        ("Enum8('a' = 1)", "String", "b"),
        ("IPv4", "IPv4", "1.2.3.4.5"),
        ("DateTime('UTC')", "DateTime('UTC')", "x"),
        ("Tuple(Int8)", "Tuple(Int8)", 5),
    ],
)
async def test_data_that_does_not_fit_is_told_apart(
    db: ClickHouse,
    type_: str,
    sent_as: str,
    value: object,
) -> None:
    await db.command(f"CREATE TABLE t (v {type_}) ENGINE = MergeTree ORDER BY tuple()")
    with pytest.raises(BadRows) as caught:
        await db.insert("t", ("v",), (sent_as,), [[value]], token="t")
    assert "\n" not in str(caught.value)
    (found,) = await db.query("SELECT count() AS n FROM t")
    assert found["n"] == 0


async def test_a_type_that_the_client_does_not_know_is_no_outage(db: ClickHouse) -> None:
    await db.command("CREATE TABLE t (v Int32) ENGINE = MergeTree ORDER BY v")
    with pytest.raises(TableError):
        await db.insert("t", ("v",), ("INTEGER",), [[1]], token="t")


async def test_constraints_are_data_errors(db: ClickHouse) -> None:
    await db.command(
        "CREATE TABLE t (v Int64, CONSTRAINT small CHECK v < 5) ENGINE = MergeTree ORDER BY v"
    )
    with pytest.raises(BadRows, match="small"):
        await db.insert("t", ("v",), ("Int64",), [[1, 9]], token="t")


@pytest.mark.parametrize(
    "bad",
    ["", "clickhouse:9000", "tcp://u:secret@h:1/d", "http://u:secret@/d", "http://h:x/secret"],
)
def test_a_wrong_url_is_a_configuration_error(bad: str) -> None:
    with pytest.raises(ConfigurationError, match="must look like") as caught:
        ClickHouse(bad)
    assert "secret" not in str(caught.value)


def test_parts_of_the_url() -> None:
    client = ClickHouse("https://us%40er:p%2Fw@example.org/my%20db")
    assert client.address == "example.org:8443"
    assert client.database == "my db"
    assert client._options["username"] == "us@er"
    assert client._options["password"] == "p/w"
    assert ClickHouse("http://[::1]").address == "[::1]:8123"


async def test_wrong_credentials_are_named_without_the_secret(
    clickhouse_server: ClickHouseServer,
) -> None:
    client = ClickHouse(f"http://default:sesame@127.0.0.1:{clickhouse_server.port}/default")
    with pytest.raises(PermissionDenied) as caught:
        await client.query("SELECT 1")
    assert "sesame" not in str(caught.value)
    await client.close()


async def test_no_server_is_an_outage() -> None:
    unused_port = free_port()
    client = ClickHouse(f"http://u:sesame@127.0.0.1:{unused_port}/d", timeout=5)
    for call in (client.ping(), client.command("SELECT 1"), client.query("SELECT 1")):
        with pytest.raises(Unavailable, match="does not answer") as caught:
            await call
        assert "sesame" not in str(caught.value)
    await client.close()


async def test_a_silent_server_is_an_outage() -> None:
    async with answering(None) as port:
        client = ClickHouse(f"http://127.0.0.1:{port}/d", timeout=0.2, change_timeout=0.2)
        for call in (
            client.ping(),
            client.command("SELECT 1"),
            client.insert("t", ("v",), ("Int8",), [[1]], token="t"),
        ):
            with pytest.raises(Unavailable, match=r"did not answer in 0\.2 s"):
                await call
        await client.close()


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (http("503 Service Unavailable", b"upstream"), Unavailable),
        (http("500 X", b"Code: 202. DB::Exception: Too many. (TOO_MANY_SIMULTANEOUS_QUERIES)", 202),
         Unavailable),
        (http("500 X", b"Code: 241. DB::Exception: Memory limit. (MEMORY_LIMIT_EXCEEDED)", 241),
         Unavailable),
        (http("500 X", b"Code: 252. DB::Exception: Too many parts. (TOO_MANY_PARTS)", 252),
         Unavailable),
        (http("403 X", b"Code: 497. DB::Exception: Not enough. (ACCESS_DENIED)", 497),
         PermissionDenied),
        (http("404 Not Found", b"<html>no such page</html>"), TableError),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Unavailable),
        (b"", Unavailable),
    ],
)  # fmt: skip
async def test_what_other_replies_mean(reply: bytes, error: type[Exception]) -> None:
    async with answering(reply) as port:
        client = ClickHouse(f"http://u:sesame@127.0.0.1:{port}/d", timeout=5)
        with pytest.raises(error) as caught:
            await client.command("CREATE TABLE x")
        assert type(caught.value) is error
        assert "sesame" not in str(caught.value)
        assert "\n" not in str(caught.value)
        await client.close()


async def test_a_closed_client_opens_again(db: ClickHouse) -> None:
    await db.ping()
    await db.close()
    await db.ping()
    await db.close()
    await db.close()
