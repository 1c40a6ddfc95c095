"""Recorded: the vectors in ClickHouse, of each key the newest one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from mqinfer.message import Row
from mqinfer.search.columns import plain
from mqinfer.search.incoming import Vector, key_of
from mqinfer.tables.columns import columns_of
from mqinfer.tables.sql import quoted
from mqinfer.tables.tables import schema_of

if TYPE_CHECKING:
    from mqinfer.index import Index
    from mqinfer.message import Message
    from mqinfer.ports import Database
    from mqinfer.search.generations import Generation

_PAGE = 2000  # vectors that are in memory as Python's floats at a time
# Of an earlier stream of this name the places say nothing; what this one has is newer.
_PLACE = "if(_published < parseDateTime64BestEffort({created:String}, 9), 0, _sequence)"


class Recorded:
    """The vectors of a generation in their table.

    Args:
        index: of which.
        kind: the type of the vectors; one that is no `Row` has no table, and nothing is recorded.
        generation: that they are of.
        created: when the app's stream was made.
    """

    def __init__(self, index: Index, kind: type[Message], generation: Generation, created: str):
        self._kind = kind
        self._parameters: dict[str, Any] = {"created": created}
        if not issubclass(kind, Row):
            return
        schema = schema_of(kind)
        columns = dict(zip(kind.__struct_fields__, columns_of(kind), strict=True))
        key = columns[index.key]
        self._key = quoted(key.name)
        self._type = str(key.kind.of.plain)
        self._table = schema.name
        self._filters = [quoted(columns[name].name) for name in index.filters]
        self._vector = quoted(columns[index.vector].name)
        self._source, conditions = quoted(schema.name), []
        if generation.run:
            # What is not shown yet, or was before: the run's own rows belong to it all the same.
            self._source = f"{quoted(schema.storage)} FINAL"
            conditions.append("(_visible = 1 OR _run = {run:String})")
            self._parameters["run"] = generation.run
        if generation.model:
            # What takes a key out is of each version; see `Incoming`.
            own = f"_models[{{model:String}}] = {{version:String}} OR empty({self._vector})"
            conditions.append(f"({own})")
            self._parameters |= {"model": generation.model, "version": generation.version}
        self._conditions = conditions

    async def there(self, database: Database) -> bool:
        """Whether there is a table."""
        if not issubclass(self._kind, Row):
            return False
        asked = (
            "SELECT 1 FROM system.tables WHERE database = currentDatabase() AND name = {t:String}"
        )
        return bool(await database.query(asked, {"t": self._table}))

    async def vectors(self, database: Database) -> AsyncIterator[list[Vector]]:
        """The newest vector of each key, in pages, by key.

        Raises:
            TableError: the server refuses.
            Unavailable: it does not answer.
        """
        columns = [f"{self._vector} AS v", *(f"{n} AS f{i}" for i, n in enumerate(self._filters))]
        async for rows in self._pages(database, columns, _PAGE):
            yield [
                Vector(
                    key_of(row["k"]),
                    2 * int(row["place"]),
                    row["v"],
                    tuple(plain(row[f"f{i}"]) for i in range(len(self._filters))),
                )
                for row in rows
            ]

    async def keys(self, database: Database) -> AsyncIterator[list[tuple[Any, bool]]]:
        """Each key, and whether its newest row takes it out, in pages; errors as of `vectors`."""
        columns = [f"empty({self._vector}) AS gone"]
        async for rows in self._pages(database, columns, 10 * _PAGE):
            yield [(key_of(row["k"]), bool(row["gone"])) for row in rows]

    async def _pages(
        self, database: Database, columns: list[str], size: int
    ) -> AsyncIterator[list[dict[str, Any]]]:
        if not await self.there(database):
            return
        last: Any = None
        while True:
            after = [] if last is None else [f"{self._key} > {{last:{self._type}}}"]
            conditions = [*after, *self._conditions]
            where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
            rows = await database.query(
                f"SELECT {self._key} AS k, {_PLACE} AS place, {', '.join(columns)} "
                f"FROM {self._source} {where}"
                f"ORDER BY {self._key}, place DESC, _published DESC "
                f"LIMIT 1 BY k LIMIT {size}",
                {**self._parameters, **({} if last is None else {"last": last})},
            )
            if rows:
                yield rows
            if len(rows) < size:
                return
            last = rows[-1]["k"]
