"""What several files share: real servers on random ports, in folders of their own, all ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from mqinfer.settings import Settings
from mqinfer.testing import nats_only
from tests.support import leftovers
from tests.support.cli import cli_stack, served, shell
from tests.support.clickhouse import clickhouse_server, db, url

# Here, and not in the files that use them: a server for each file would live until the end.
__all__ = ["cli_stack", "clickhouse_server", "db", "served", "shell", "url"]


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """The last test fails if a process that any test started has outlived them all."""
    mark = leftovers.mark()
    yield
    left = leftovers.end(mark, patience=30)
    assert not left, "still alive after all tests, and killed now:\n" + "\n".join(left)


@pytest_asyncio.fixture
async def nats(tmp_path: Path) -> AsyncIterator[Settings]:
    """Settings of a nats-server that this test has for itself."""
    async with nats_only(tmp_path / "stack") as settings:
        yield settings
