"""Queries of the embedded ClickHouse under way: their ids, their end, their sessions."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path

import clickhouse_connect
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from mqinfer.stack import ClickHouseServer
from mqinfer.testing import until
from tests.stack.wire import Answer, address, http, server

__all__ = ["server"]

# Each would run for hours.
ENDLESS = {
    "rows": "SELECT number FROM system.numbers",
    "nothing comes": "SELECT sum(sipHash64(number)) FROM system.numbers",
    "sleeps": "SELECT sleepEachRow(1) FROM system.numbers SETTINGS max_block_size = 1",
    "sorts": "SELECT number FROM numbers(1_000_000_000_000) ORDER BY sipHash64(number) LIMIT 1",
}


def running(server: ClickHouseServer, like: str) -> list[str]:
    """The ids of the queries under way."""
    answer = http(
        server,
        query="SELECT query_id FROM system.processes WHERE query_id LIKE {like:String} "
        "ORDER BY query_id FORMAT JSONEachRow",
        param_like=like,
        query_id="looking",
    )
    assert answer.status == 200, answer.body
    return [json.loads(line)["query_id"] for line in answer.body.splitlines()]


def begin(server: ClickHouseServer, query: str, **parameters: str) -> socket.socket:
    """Send a query and read nothing; closing the socket is going away."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    path = address(server, **parameters).partition(str(server.port))[2]
    body = query.encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


async def settle(look: Callable[[], bool]) -> None:
    async def seen() -> bool:
        return await asyncio.to_thread(look)

    await until(seen, timeout=60)


@pytest.mark.parametrize("kind", ENDLESS)
async def test_a_query_is_seen_by_its_id_and_ends_when_its_client_goes(
    server: ClickHouseServer, kind: str
) -> None:
    query_id = f"gone's-{kind}"
    connection = begin(server, ENDLESS[kind], query_id=query_id)
    await settle(lambda: running(server, "gone%") == [query_id])
    connection.close()
    await settle(lambda: running(server, "gone%") == [])


@pytest.mark.parametrize("mode", ["", "ASYNC", "SYNC"])
@pytest.mark.parametrize("kind", ["nothing comes", "sleeps", "sorts"])
async def test_kill_query_by_the_id(server: ClickHouseServer, kind: str, mode: str) -> None:
    query_id = f"killed {kind} {mode}"
    slow = asyncio.create_task(
        asyncio.to_thread(http, server, ENDLESS[kind], query_id=query_id, max_execution_time="100")
    )
    await settle(lambda: running(server, "killed%") == [query_id])
    for statement in (
        f"KILL QUERY WHERE query_id = '{query_id}' TEST",
        f"KILL QUERY WHERE query_id = {{id:String}} AND user = 'default' {mode} FORMAT JSONEachRow",
    ):
        answer = http(server, statement, param_id=query_id)
        assert answer.status == 200, answer.body
    told = json.loads(answer.body)
    assert told["query_id"] == query_id
    assert told["kill_status"] == ("finished" if mode == "SYNC" else "waiting")
    assert told["query"].startswith("SELECT")
    ended = await slow
    assert (ended.status, ended.code) == (500, "394")
    assert running(server, "killed%") == []


def test_kill_query_of_nobody(server: ClickHouseServer) -> None:
    answer = http(server, "kill query where query_id = 'nobody' sync")
    assert (answer.status, answer.body) == (200, b"")
    answer = http(server, "KILL QUERY WHERE nothing = 1")
    assert answer.code == "47"
    assert http(server, query="KILL QUERY WHERE 1").code == "164"


@pytest.mark.parametrize("name", ["system.processes", "`system`.processes", 'system."processes"'])
def test_the_id_of_a_query_in_its_own_answer(server: ClickHouseServer, name: str) -> None:
    query = f"SELECT query_id, initial_query_id FROM {name} AS p WHERE p.query LIKE 'SELECT%'"
    answer = http(server, query, query_id="it's \\ me")
    assert answer.body == b"it\\'s \\\\ me\tit\\'s \\\\ me\n"
    assert answer.headers["x-clickhouse-query-id"] == "it's \\ me"


def test_an_odd_id_is_no_header_of_its_own(server: ClickHouseServer) -> None:
    answer = http(server, "SELECT 1", query_id="a\r\nX-Own: 1 \u00fc\u4e2d ", default_format="TSV")
    assert (answer.status, answer.body) == (200, b"1\n")
    assert answer.headers["x-clickhouse-query-id"] == "a??X-Own: 1 ??"
    assert "x-own" not in answer.headers


async def test_an_id_that_is_at_work_is_refused(server: ClickHouseServer) -> None:
    connection = begin(server, ENDLESS["nothing comes"], query_id="twice")
    await settle(lambda: running(server, "twice") == ["twice"])
    answer = http(server, "SELECT 1", query_id="twice")
    assert (answer.status, answer.code) == (500, "216")
    assert b"QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING" in answer.body
    answer = await asyncio.to_thread(
        http, server, "SELECT 2", query_id="twice", replace_running_query="1"
    )
    assert answer.body == b"2\n"
    connection.settimeout(60)
    assert b"QUERY_WAS_CANCELLED" in connection.recv(65536)
    connection.close()
    assert http(server, "SELECT 3", query_id="twice").body == b"3\n"


async def test_a_long_query_keeps_nobody_waiting(server: ClickHouseServer) -> None:
    with begin(server, ENDLESS["sleeps"], query_id="long"):
        await settle(lambda: running(server, "long") == ["long"])
        for _ in range(4):
            answers = await asyncio.gather(
                *(asyncio.to_thread(http, server, f"SELECT {number}") for number in range(4))
            )
            assert [answer.body for answer in answers] == [b"0\n", b"1\n", b"2\n", b"3\n"]
        assert running(server, "long") == ["long"]
    await settle(lambda: running(server, "long") == [])


async def test_many_abandoned_queries_block_nobody(server: ClickHouseServer) -> None:
    # Most take a place and no processor, and those that would have it all come last.
    kinds = [*["sleeps"] * 72, *[*ENDLESS] * 2]
    connections = [
        begin(server, ENDLESS[kind], query_id=f"left{number}") for number, kind in enumerate(kinds)
    ]
    await settle(lambda: len(running(server, "left%")) > 60)
    for connection in connections:
        connection.close()
    assert http(server, "SELECT 1").body == b"1\n"
    await settle(lambda: running(server, "left%") == [])


async def test_who_goes_away_leaves_the_session_free(server: ClickHouseServer) -> None:
    session = {"session_id": "left"}
    http(server, "CREATE TEMPORARY TABLE kept (a UInt8)", **session)
    connection = begin(server, ENDLESS["sleeps"], query_id="in-session", **session)
    await settle(lambda: running(server, "in-session") == ["in-session"])
    answer = http(server, "SELECT 1", **session)
    assert (answer.status, answer.code) == (500, "373")
    connection.close()
    await settle(lambda: http(server, "SELECT 1", **session).status == 200)
    assert http(server, "SELECT count() FROM kept", **session).body == b"0\n"


async def test_a_change_is_made_although_its_client_went(server: ClickHouseServer) -> None:
    http(server, "CREATE TABLE made (a UInt64) ENGINE = MergeTree ORDER BY a")
    statement = (
        "INSERT INTO made SELECT number + sleepEachRow(0.05) FROM numbers(20) "
        "SETTINGS max_block_size = 1"
    )
    connection = begin(server, statement, query_id="made")
    await settle(lambda: running(server, "made") == ["made"])
    connection.close()
    await settle(lambda: http(server, "SELECT count() FROM made").body == b"20\n")


async def test_a_stop_ends_what_is_at_work(tmp_path: Path) -> None:
    server = ClickHouseServer(tmp_path / "data", log=tmp_path / "clickhouse.log")
    await server.start()
    try:
        await server.wait_ready()
        kinds = ["nothing comes", "sleeps", "sorts"]
        connections = [begin(server, ENDLESS[kind], query_id=kind) for kind in kinds]
        connections.append(begin(server, ENDLESS["sleeps"], query_id="s", session_id="s"))
        await settle(lambda: len(running(server, "%")) >= len(connections))
    finally:
        await server.stop()
    for connection in connections:
        connection.close()
    # Killed after ten seconds, it would have said nothing; and what was broken off is no error.
    assert "Traceback" not in (await asyncio.to_thread((tmp_path / "clickhouse.log").read_text))


async def test_a_session_times_out_and_ends_when_asked(server: ClickHouseServer) -> None:
    def temporary(**parameters: str) -> Answer:
        return http(server, "SELECT count() FROM mine", **parameters)

    http(server, "CREATE TEMPORARY TABLE mine (a UInt8)", session_id="short", session_timeout="1")
    await asyncio.sleep(1.1)
    answer = temporary(session_id="short", session_check="1")
    assert answer.code == "372"
    assert http(server, "SELECT 1", session_id="short", session_timeout="99999").code == "374"
    assert http(server, "SELECT 1", session_id="short", session_timeout="soon").code == "374"
    http(server, "CREATE TEMPORARY TABLE mine (a UInt8)", session_id="closed")
    assert temporary(session_id="closed", close_session="1").body == b"0\n"
    assert temporary(session_id="closed", session_check="1").code == "372"


def test_readonly_of_one_query_does_not_stay_in_its_session(server: ClickHouseServer) -> None:
    session = {"session_id": "reader"}
    create = "CREATE TABLE IF NOT EXISTS by_reader (a UInt8) ENGINE = Memory"
    assert http(server, "SELECT 1", readonly="1", **session).body == b"1\n"
    assert http(server, create, readonly="1", **session).code == "164"
    assert http(server, create, **session).status == 200


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("SELEC 1", "62"),
        ("", "62"),
        ("SELECT * FROM nowhere", "60"),
        ("DROP TABLE nowhere", "164"),
        ("INSERT INTO nowhere SELECT 1", "164"),
        ("CREATE DATABASE no", "164"),
        ("SYSTEM FLUSH LOGS", "164"),
        ("TRUNCATE TABLE nowhere", "164"),
        ("SET max_threads = 1", ""),
        ("USE system", ""),
        ("SHOW TABLES", ""),
        ("EXISTS nowhere", ""),
        ("EXPLAIN SELECT 1", ""),
        ("WITH 1 AS x SELECT x", ""),
    ],
)
def test_what_a_get_may_say(server: ClickHouseServer, query: str, code: str) -> None:
    answer = http(server, query=query)
    assert answer.code == code, answer.body


@pytest.mark.parametrize("name", ["*", "t?", "select * from t", "%", "/etc/passwd", "a.csv", "{1}"])
def test_exists_answers_for_tables_alone(server: ClickHouseServer, name: str) -> None:
    http(server, "CREATE TABLE IF NOT EXISTS t (a UInt8) ENGINE = Memory")
    for statement in ("EXISTS", "EXISTS TABLE"):
        assert http(server, f"{statement} `{name}`").body == b"0\n"
        assert http(server, f"{statement} t").body == b"1\n"


async def test_clickhouse_connect_goes_on_after_a_cancelled_query(
    server: ClickHouseServer,
) -> None:
    with clickhouse_connect.get_client(dsn=server.url) as client:  # with a session of its own
        slow = asyncio.create_task(
            asyncio.to_thread(
                client.query, ENDLESS["nothing comes"], settings={"query_id": "by-client"}
            )
        )
        await settle(lambda: running(server, "by-client") == ["by-client"])
        http(server, "KILL QUERY WHERE query_id = 'by-client'")
        with pytest.raises(DatabaseError, match="394"):
            await slow
        assert client.command("SELECT 1") == 1
    client = await clickhouse_connect.get_async_client(dsn=server.url)
    try:
        for _ in range(3):
            query = client.query(ENDLESS["sleeps"], settings={"query_id": "by-async"})
            task = asyncio.create_task(query)
            await settle(lambda: running(server, "by-async") == ["by-async"])
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await settle(lambda: running(server, "by-async") == [])
            began = time.monotonic()
            assert await client.command("SELECT 1") == 1
            assert time.monotonic() - began < 30
    finally:
        await client.close()
