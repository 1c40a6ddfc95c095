"""What the tests of the embedded ClickHouse say to it: plain HTTP, nothing of a client's."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from mqinfer.stack import ClickHouseServer
from tests.support.running import running


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = body

    @property
    def code(self) -> str:
        """Of an error; empty for none."""
        return self.headers.get("x-clickhouse-exception-code", "")

    @property
    def summary(self) -> dict[str, int]:
        written = json.loads(self.headers["x-clickhouse-summary"])
        return {name: int(value) for name, value in written.items()}


def address(server: ClickHouseServer, path: str = "/", **parameters: str) -> str:
    return f"http://127.0.0.1:{server.port}{path}?{urllib.parse.urlencode(parameters)}"


def http(
    server: ClickHouseServer,
    body: bytes | str | None = None,
    headers: dict[str, str] | None = None,
    path: str = "/",
    **parameters: str,
) -> Answer:
    """One request; a body makes it a POST."""
    data = body.encode() if isinstance(body, str) else body
    url = address(server, path, **parameters)
    request = urllib.request.Request(url, data=data, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return Answer(response.status, dict(response.headers), response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, dict(error.headers), error.read())


@pytest.fixture(scope="module")
def server(clickhouse_server: ClickHouseServer) -> Iterator[ClickHouseServer]:
    """The one of all tests; what a file made in its default database goes with it."""
    yield clickhouse_server
    tables = http(clickhouse_server, query="SHOW TABLES FORMAT TSVRaw").body.decode().split("\n")
    for name in filter(None, tables):
        answer = http(clickhouse_server, f"DROP TABLE `{name}`")
        assert answer.status == 200, answer.body


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def own_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ClickHouseServer]:
    """One that a file may kill, or whose memory it looks at."""
    directory = Path(tmp_path_factory.mktemp("clickhouse"))
    made = ClickHouseServer(directory / "data", log=directory / "clickhouse.log")
    async with running(made) as server:
        yield server
