"""Replicas: several ClickHouse servers that have the same tables, used as one.

One is asked for as long as it answers: it has what was written through it, and a rehearsal is a
session of one server. When it does not answer, the next one is asked from then on. What only reads
is asked again at once. A statement or a block that may have been taken is not: whoever sent it
hears that, as of a single server, and sends it again, a block under its token, by which every
replica knows it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from mqinfer.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mqinfer.adapters.clickhouse import ClickHouse
    from mqinfer.ports import Rehearse

T = TypeVar("T")
log = structlog.get_logger("mqinfer.clickhouse")


class Replicas:
    """A `Database` of several servers.

    Args:
        servers: in the order in which they are tried.
    """

    def __init__(self, servers: Sequence[ClickHouse]):
        self._servers = servers
        self._at = 0
        self.cluster = servers[0].cluster

    @contextmanager
    def _one(self) -> Iterator[ClickHouse]:
        """The server that is asked now; the next one from then on, if it does not answer."""
        at = self._at
        try:
            yield self._servers[at]
        except Unavailable as error:
            if self._at == at:
                self._at = (at + 1) % len(self._servers)
                log.warning("another replica is asked from now on", reason=str(error))
            raise

    async def _any(self, ask: Callable[[ClickHouse], Awaitable[T]]) -> T:
        for _ in self._servers[1:]:
            try:
                with self._one() as server:
                    return await ask(server)
            except Unavailable:
                continue
        with self._one() as server:
            return await ask(server)

    async def ping(self) -> None:
        """Return if one takes statements; see `Database.ping`."""
        await self._any(lambda server: server.ping())

    async def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Run a statement; see `Database.command`."""
        with self._one() as server:
            await server.command(sql, parameters)

    async def settle(self, table: str) -> None:
        """See `Database.settle`."""
        with self._one() as server:
            await server.settle(table)

    async def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """The rows of a query; see `Database.query`."""
        return await self._any(lambda server: server.query(sql, parameters))

    async def insert(
        self,
        table: str,
        columns: Sequence[str],
        types: Sequence[str],
        data: Sequence[Sequence[Any]],
        *,
        token: str,
    ) -> None:
        """Insert a block of rows; see `Database.insert`."""
        with self._one() as server:
            await server.insert(table, columns, types, data, token=token)

    def load(self) -> None:
        """Import what inserts need; see `Database.load`."""
        self._servers[0].load()

    @asynccontextmanager
    async def rehearsal(
        self, table: str, columns: Sequence[str], types: Sequence[str]
    ) -> AsyncIterator[Rehearse]:
        """Inserts that keep nothing; see `Database.rehearsal`."""
        with self._one() as server:
            async with server.rehearsal(table, columns, types) as rehearse:
                yield rehearse

    async def close(self) -> None:
        """Release connections."""
        for server in self._servers:
            await server.close()
