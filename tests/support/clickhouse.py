"""A real ClickHouse for the tests of tables, sink and adapter: one server, one database a test."""

from __future__ import annotations

import asyncio
import itertools
import json
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit

import pytest

from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.errors import TableError
from mqinfer.stack.clickhouse.server import ClickHouseServer

_numbers = itertools.count()


async def started(folder: Path) -> ClickHouseServer:
    server = ClickHouseServer(folder / "data", log=folder / "clickhouse.log")
    await server.start()
    await server.wait_ready()
    return server


@pytest.fixture(scope="session")
def clickhouse_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    pytest.importorskip("chdb")
    server = asyncio.run(started(tmp_path_factory.mktemp("clickhouse")))
    yield server
    asyncio.run(server.stop())


@pytest.fixture
def url(clickhouse_server: ClickHouseServer) -> Iterator[str]:
    """The URL of a database of its own, which is gone afterwards.

    A server looks after every table that there is, for as long as there is one: a thousand of them
    take a tenth of a processor.
    """
    name = f"test_{next(_numbers)}"
    ask(clickhouse_server.url, f"CREATE DATABASE {name}")
    yield clickhouse_server.url.rpartition("/")[0] + "/" + name
    ask(clickhouse_server.url, f"DROP DATABASE IF EXISTS {name}")


def ask(url: str, sql: str) -> list[dict[str, Any]]:
    """What a server says to a statement, its rows as dictionaries.

    A client's beginning costs ten times as much, and it belongs to an event loop: too dear for a
    test without one that looks again and again.

    Raises:
        TableError: it refuses the statement.
    """
    parts = urlsplit(url)
    options = urlencode(
        {
            "database": parts.path.strip("/"),
            "default_format": "JSONEachRow",
            "output_format_json_quote_64bit_integers": 0,
        }
    )
    address = f"http://{parts.hostname}:{parts.port}/?{options}"
    headers = {"X-ClickHouse-User": parts.username or "default"}
    request = urllib.request.Request(address, sql.encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return [json.loads(line) for line in answer]
    except HTTPError as error:
        raise TableError(error.read().decode()) from None


@pytest.fixture
async def db(url: str) -> AsyncIterator[ClickHouse]:
    client = ClickHouse(url)
    yield client
    await client.close()
