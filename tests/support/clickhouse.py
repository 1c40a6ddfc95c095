"""A real ClickHouse for the tests of tables, sink and adapter: one server, one database a test."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mqinfer.adapters.clickhouse import ClickHouse
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
async def url(clickhouse_server: ClickHouseServer) -> AsyncIterator[str]:
    """The URL of a database of its own, which is gone afterwards.

    A server looks after every table that there is, for as long as there is one: a thousand of them
    take a tenth of a processor.
    """
    name = f"test_{next(_numbers)}"
    await _tell(clickhouse_server, f"CREATE DATABASE {name}")
    yield clickhouse_server.url.rpartition("/")[0] + "/" + name
    await _tell(clickhouse_server, f"DROP DATABASE IF EXISTS {name}")


async def _tell(server: ClickHouseServer, statement: str) -> None:
    """By a connection of its own: one that is idle while the test runs its own loop may be lost."""
    client = ClickHouse(server.url)
    try:
        await client.command(statement)
    finally:
        await client.close()


@pytest.fixture
async def db(url: str) -> AsyncIterator[ClickHouse]:
    client = ClickHouse(url)
    yield client
    await client.close()
