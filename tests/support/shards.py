"""A cluster of two shards within one embedded ClickHouse, for as much as one engine can be two.

Both shards are this engine itself, which plans, splits and merges as for several. They have one
table between them, so each is shown the half of the rows that is its own, by a filter that asks for
the shard's number. Left out is what needs other servers: ON CLUSTER, replication, and tokens, since
the second shard's block would be taken for the first one's.

    python -m tests.support.shards --directory D --port P ...     # as mqinfer.stack.clickhouse
"""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mqinfer.stack.clickhouse import access
from mqinfer.stack.clickhouse.server import ClickHouseServer
from mqinfer.tables import sharded
from tests.support.running import running

CLUSTER = "plants"
_REPLICA = "<shard><replica><host>127.0.0.1</host><port>9000</port></replica></shard>"
_CONFIG = (
    f"<tcp_port>9000</tcp_port><remote_servers><{CLUSTER}>{_REPLICA * 2}</{CLUSTER}>"
    "</remote_servers><macros><shard>1</shard><replica>1</replica></macros></clickhouse>"
)
_PLACE = re.compile(r"Replicated(\w+)\('[^']*', '[^']*'(?:, )?")
_FILTERS = "additional_table_filters"


class Server(ClickHouseServer):
    """The embedded ClickHouse with a cluster of two shards."""

    def command(self) -> list[str]:
        """Give the command line."""
        return [sys.executable, "-m", "tests.support.shards", *super().command()[3:]]


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Server]:
    """A server, while it is used."""
    async with running(Server(folder / "data", log=folder / "clickhouse.log")) as server:
        yield server


def in_one_engine(patch: pytest.MonkeyPatch) -> list[str]:
    """Have our statements said so that the one engine takes them; what a cluster is told is kept.

    Returns:
        The statements for a cluster, as they come.
    """
    told, said, filters = sharded.told, list[str](), dict[str, str]()

    def local(statement: str, at: sharded.Shards) -> list[str]:
        statements = told(statement, at)
        said.extend(statements)
        for name in re.findall(r"^CREATE TABLE IF NOT EXISTS `(\w+__shard)`", statements[0]):
            filters[f"{at.database}.{name}"] = "cityHash64(_id) % 2 = shardNum() - 1"
        for settings in (sharded.SETTINGS, sharded.WRITING, sharded.CHANGING):
            patch.setitem(settings, _FILTERS, str(filters))
        return [_said(one) for one in statements]

    patch.setattr(sharded, "told", local)
    patch.setattr(sharded, "LAID", sharded.LAID.replace("uniqExact(substitution)", "count()"))
    return said


def _said(statement: str) -> str:
    if statement.startswith("SYSTEM SYNC REPLICA"):
        return "SELECT 1"
    statement = statement.replace(f" ON CLUSTER '{CLUSTER}'", "")
    statement = statement.replace("deduplication_window = 1000", "deduplication_window = 0")
    return _PLACE.sub(r"\1(", statement)


def main() -> None:
    """Serve."""
    from mqinfer.stack.clickhouse import __main__ as served

    allowed: Any = access._ALLOWED
    allowed["engines"] += " Distributed"
    allowed["table_functions"] += " cluster clusterAllReplicas"
    allowed["functions"] += " shardNum tcpPort hostName"
    allowed["fixed_settings"] = allowed["fixed_settings"].replace(_FILTERS, "")
    allowed["privileges"].append("REMOTE")
    names, configured = access._names, access._server
    access._names = lambda connection, query: (
        [] if query == "SHOW GRANTS" else names(connection, query)
    )
    access._server = lambda users, empty: configured(users, empty).replace("</clickhouse>", _CONFIG)
    served.main()


if __name__ == "__main__":
    main()
