"""The embedded ClickHouse keeps to its own tables, and is otherwise what it was."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

pytest.importorskip("chdb")
from mqinfer.stack import ClickHouseServer
from tests.support.trap import Trap, ask, trapped

STATEMENTS = Path(__file__).with_name("statements")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trap(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Trap]:
    async with trapped(tmp_path_factory.mktemp("beyond")) as trap:
        yield trap


def statements(file: str) -> list[str]:
    lines = (STATEMENTS / file).read_text().splitlines()
    return [line.replace("<newline>", "\n") for line in lines]


@pytest.mark.parametrize("post", [True, False], ids=["POST", "GET"])
def test_what_reaches_beyond_is_refused(trap: Trap, post: bool) -> None:
    kinds = statements("refused.sql")
    assert len(kinds) > 140
    done = [kind for kind in kinds if trap.ask(trap.bait(kind), post=post)[0] == 200]
    assert not done
    trap.look_through()


def test_what_it_is_for_goes_on(trap: Trap) -> None:
    for statement in statements("ordinary.sql"):
        status, body = trap.ask(statement)
        assert status == 200, (statement, body)


def test_a_refusal_says_what_to_do(trap: Trap) -> None:
    for kind in ("SELECT file('/x')", "SELECT 1 INTO OUTFILE '/x'", "BACKUP TABLE t TO File('x')"):
        status, body = trap.ask(kind)
        assert status == 403, body
        assert body.startswith(b"Code: 497. DB::Exception: The embedded ClickHouse")
        assert b"MQINFER_CLICKHOUSE_URL" in body


@pytest.mark.parametrize("kind", ["DROP DATABASE", "DETACH DATABASE", "RENAME DATABASE"])
def test_the_database_that_connections_begin_in_stays(trap: Trap, kind: str) -> None:
    more = " TO other" if kind.startswith("RENAME") else ""
    status, body = trap.ask(f"{kind} `default`{more}")
    assert (status, b"TRUNCATE DATABASE default" in body) == (403, True)
    other = f"to_{kind.split()[0].lower()}"
    trap.ask(f"CREATE DATABASE {other}")
    assert trap.ask(f"{kind} {other}{more}")[0] == 200
    trap.look_through()


def test_settings_of_the_address_reopen_nothing(trap: Trap) -> None:
    """In a session, too, where they would hold for what comes later."""
    for name, value in {
        "format_template_resultset": "{file}",
        "format_schema": "{schema}:M",
        "dialect": "kusto",
        "additional_result_filter": "file('{file}') != ''",
        "readonly": "0",
        "allow_introspection_functions": "1",
        "input_format_values_deduce_templates_of_expressions": "1",
    }.items():
        for session in ({}, {"session_id": "one"}):
            status, _ = trap.ask("SELECT 1 FORMAT Template", **{name: trap.bait(value)}, **session)
            assert status != 200
    status, _ = trap.ask("SELECT * FROM {t:Identifier}", param_t=str(trap.file))
    assert status == 404


async def test_tables_of_an_earlier_release_are_found(tmp_path: Path) -> None:
    """Those of chDB's own default database, which lies over the filesystem."""
    earlier = f"""
import chdb
connection = chdb._chdb.connect({str(tmp_path / "data")!r})
connection.query("CREATE TABLE kept (a UInt64, b String) ENGINE = MergeTree ORDER BY a")
connection.query("INSERT INTO kept VALUES (7, 'x')")
connection.query("CREATE TABLE copied (a UInt64) ENGINE = MergeTree ORDER BY a")
connection.query("CREATE MATERIALIZED VIEW copies TO copied AS SELECT a FROM kept")
connection.query("CREATE VIEW seen AS SELECT a FROM kept")
connection.query("CREATE DICTIONARY named (a UInt64, b String) PRIMARY KEY a "
                 "SOURCE(CLICKHOUSE(TABLE 'kept')) LAYOUT(FLAT()) LIFETIME(0)")
connection.query("CREATE TABLE used (a UInt64, b String DEFAULT dictGet('named', 'b', a)) "
                 "ENGINE = MergeTree ORDER BY a")
connection.close()
"""
    command = [sys.executable, "-c", earlier]
    await asyncio.to_thread(subprocess.run, command, timeout=60, check=True)
    server = ClickHouseServer(tmp_path / "data", log=tmp_path / "log")
    for rows in (1, 2):
        await server.start()
        try:
            await server.wait_ready()
            for query, answer in (
                ("INSERT INTO kept VALUES (8, 'y')", b""),
                ("INSERT INTO used (a) VALUES (7)", b""),
                ("SELECT DISTINCT a FROM seen ORDER BY a", b"7\n8\n"),
                ("SELECT count() FROM copied", b"%d\n" % rows),
                ("SELECT DISTINCT b FROM used", b"x\n"),
            ):
                assert await asyncio.to_thread(ask, server.port, query) == (200, answer)
        finally:
            await server.stop()
