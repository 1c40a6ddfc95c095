"""A real ClickHouse for the tests of tables, sink and adapter: one server, one database a test."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.stack.clickhouse import ClickHouseServer

pytest.importorskip("chdb")

_numbers = itertools.count()


async def until(
    condition: Callable[[], object | Awaitable[object]], timeout: float = 30.0
) -> object:
    """Wait for a state."""
    async with asyncio.timeout(timeout):
        while True:
            value = condition()
            if isinstance(value, Awaitable):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.01)


async def started(folder: Path) -> ClickHouseServer:
    server = ClickHouseServer(folder / "data", log=folder / "clickhouse.log")
    await server.start()
    await server.wait_ready()
    return server


@pytest.fixture(scope="session")
def clickhouse_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    server = asyncio.run(started(tmp_path_factory.mktemp("clickhouse")))
    yield server
    asyncio.run(server.stop())


@pytest.fixture
async def url(clickhouse_server: ClickHouseServer) -> str:
    """The URL of a database of its own."""
    name = f"test_{next(_numbers)}"
    admin = ClickHouse(clickhouse_server.url)
    await admin.command(f"CREATE DATABASE {name}")
    await admin.close()
    return clickhouse_server.url.rpartition("/")[0] + "/" + name


@pytest.fixture
async def db(url: str) -> AsyncIterator[ClickHouse]:
    client = ClickHouse(url)
    yield client
    await client.close()
