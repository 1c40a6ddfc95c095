"""Examples: the rows that have a label, or lie in a bin, the newest first, page by page.

The newest rows of a frequent label lie in the last hours, which are looked through first; those of
a rare one in hours that its counts name. A row stands where the copy of it that is kept says, so
that none stands on two pages, and a page may have fewer rows than it could.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mqinfer.monitor.bins import MISSING
from mqinfer.monitor.counting import key_sql, of_column
from mqinfer.tables.sql import quoted, text_literal
from mqinfer.tables.tables import BORN, TableSchema, schema_of

if TYPE_CHECKING:
    from mqinfer.message import Row
    from mqinfer.monitor.watched import Field
    from mqinfer.ports import Database

# Nanoseconds that are looked through before the counts are asked; one hour is for clocks.
_SOON: Final = 3 * 3600 * 10**9
_DAYS: Final = 400
_CLOCKS: Final = 3600  # seconds by which clocks may differ
_LONGEST: Final = 2000  # characters of a column; blobs that ride in a row are longer
_SHORT: Final = 200  # characters of a label, at which it is cut


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ends: the last row on it.

    Attributes:
        published: nanoseconds since the epoch.
        id: of the row.
    """

    published: int
    id: str

    def __str__(self) -> str:
        return f"{self.published}.{self.id}"


def place_of(text: str) -> Place | None:
    """The place that a text names; None where it names none."""
    published, dot, identity = text.partition(".")
    if not dot or not published.isascii() or not published.isdigit() or len(published) > 19:
        return None
    return Place(min(int(published), 2**63 - 1), identity)


@dataclass(frozen=True, slots=True)
class Example:
    """One row.

    Attributes:
        id: of the row.
        published: when the stream stored it, nanoseconds since the epoch.
        sequence: its place in the stream.
        ancestors: what it was made from, its parent last.
        models: versions that answered.
        shown: whether the table shows it; a promoted run's stands in its place, if not.
        columns: by name; texts are cut at 2,000 characters, blobs are not.
    """

    id: str
    published: int
    sequence: int
    ancestors: tuple[str, ...]
    models: dict[str, str]
    shown: bool
    columns: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """A page of examples.

    Attributes:
        rows: the newest first.
        next: where the following page begins; None: there is none.
    """

    rows: tuple[Example, ...]
    next: Place | None = None


class Examples:
    """The rows of one column's keys.

    Args:
        db: that has the table.
        row: its row type.
        field: the column.
        blobs: columns that hold blobs, and are given whole.
        model: whose answers, where several models answer in the column; "": any.
    """

    def __init__(
        self,
        db: Database,
        row: type[Row],
        field: Field,
        blobs: Sequence[str] = (),
        model: str = "",
    ):
        self._db = db
        self._schema: TableSchema = schema_of(row)
        self._field = field
        self._blobs = frozenset(blobs)
        self._model = model or field.model
        self._stages = [name for name, asked in field.by_stage if asked == model]

    async def page(
        self, key: str, now: float, limit: int, *, after: Place | None = None, version: str = ""
    ) -> Found:
        """Rows that have a key.

        Args:
            key: as it is counted.
            now: seconds since the epoch.
            limit: the most.
            after: where the page before ended.
            version: of the model; "": any.
        """
        until = int((now + _CLOCKS) * 1e9) if after is None else after.published
        where = self._where(key, after, version)
        keys = await self._candidates(where, until - _SOON, until, limit)
        if len(keys) < limit:
            since = await self._hours(key, until, limit, version)
            if since is not None:
                keys = await self._candidates(where, since, until, limit)
        if not keys:
            return Found(())
        rows = await self._rows(where, keys)
        last = Place(int(keys[-1]["mq_published"]), str(keys[-1][_as("_id")]))
        return Found(tuple(rows), last if len(keys) == limit else None)

    async def one(self, place: Place) -> Example | None:
        """One row that was on a page; None where it is no more."""
        where = f"_id = {text_literal(place.id)}"
        keys = await self._candidates(where, place.published, place.published, 1)
        rows = await self._rows(where, keys) if keys else []
        return rows[0] if rows else None

    def _where(self, key: str, after: Place | None, version: str) -> str:
        found = [self._has(key), "_run = ''"]
        if self._stages:
            found.append(f"toString(_stage) IN ({', '.join(map(text_literal, self._stages))})")
        if version and self._model:
            model = text_literal(self._model)
            found.append(f"toString(_models[{model}]) = {text_literal(version)}")
        if after is not None:
            moment = f"fromUnixTimestamp64Nano({after.published})"
            found.append(f"(_published, _id) < ({moment}, {text_literal(after.id)})")
        return " AND ".join(found)

    def _has(self, key: str) -> str:
        """SQL for whether a row has a key; the column itself is compared where that is enough."""
        kind = self._schema.types[self._field.column]
        plain = kind in ("String", "LowCardinality(String)")
        if self._field.shape == "value" and plain and len(key.encode()) <= _SHORT:
            return f"{quoted(self._field.column)} = {text_literal(key)}"
        if self._field.shape == "value" and key == MISSING and "Nullable" in kind:
            name = quoted(self._field.column)
            return f"(isNull({name}) OR toString({name}) = {text_literal(MISSING)})"
        return f"{key_sql(self._field)} = {text_literal(key)}"

    async def _candidates(
        self, where: str, since: int, until: int, limit: int
    ) -> list[dict[str, Any]]:
        """The newest rows, by the columns that the table is sorted by; copies are told apart."""
        key = ", ".join(f"toString({quoted(name)}) AS {quoted(_as(name))}" for name in self._keys())
        return await self._db.query(
            f"SELECT {key}, _partition_id AS mq_part, "
            "toUnixTimestamp64Nano(_published) AS mq_published "
            f"FROM {quoted(self._schema.storage)} "
            f"WHERE {self._between(since, until)} AND {where} "
            f"ORDER BY _published DESC, _id DESC LIMIT 1 BY _id LIMIT {int(limit)}"
        )

    def _keys(self) -> tuple[str, ...]:
        """The columns that the table is sorted by."""
        return self._schema.sorting_key

    def _between(self, since: int, until: int) -> str:
        """SQL for rows of a time, so that days without any are not read.

        A row comes after its lineage began, and no part is older than its newest row.
        """
        first, last = max(0, since // 10**9), until // 10**9
        return (
            f"_published >= fromUnixTimestamp64Nano({max(0, since)}) "
            f"AND _published <= fromUnixTimestamp64Nano({until}) "
            f"AND {BORN} <= toDateTime64({last + _CLOCKS}, 3, 'UTC') "
            "AND _partition_id IN (SELECT partition_id FROM system.parts WHERE active "
            f"AND table = {text_literal(self._schema.storage)} "
            f"AND modification_time >= toDateTime({max(0, first - _CLOCKS)}))"
        )

    async def _hours(self, key: str, until: int, limit: int, version: str) -> int | None:
        """When the first of the hours begins that have so many rows of a key; None: none has."""
        since = until // 10**9 - _DAYS * 86_400
        source = of_column(self._schema, self._field, max(0, since))
        ours = "AND version = {version:String} " if version and self._model else ""
        ours += f"AND model = {text_literal(self._model)} " if self._stages else ""
        found = await self._db.query(
            "SELECT toUnixTimestamp(toStartOfHour(step)) AS hour, sum(n) AS n "
            f"FROM ({source}) WHERE key = {{key:String}} AND run = '' {ours}"
            "AND step <= toDateTime({until:UInt32}, 'UTC') "
            "GROUP BY hour ORDER BY hour DESC LIMIT {limit:UInt32}",
            {
                "key": key,
                "version": version,
                "until": min(until // 10**9, 2**32 - 1),
                "limit": limit + 1,
            },
        )
        # One row more than there is room for: the hour of the page's end counts in part only.
        rows, begins = 0, None
        for hour in found:
            rows, begins = rows + int(hour["n"]), int(hour["hour"])
            if rows > 2 * limit:
                break
        return None if begins is None else begins * 10**9

    async def _rows(self, where: str, keys: Sequence[dict[str, Any]]) -> list[Example]:
        """The rows as they are kept."""
        columns = ", ".join(self._column(column.name) for column in self._schema.columns)
        # By the sorting key and the partition, so that FINAL reads no more than these rows' places.
        tuples = ", ".join(f"({', '.join(self._values(one))})" for one in keys)
        parts = ", ".join({text_literal(str(one["mq_part"])) for one in keys})
        rows = await self._db.query(
            f"SELECT {columns}, _id, _sequence, _ancestors, _models, _visible, "
            "toUnixTimestamp64Nano(_published) AS mq_published "
            f"FROM {quoted(self._schema.storage)} FINAL "
            f"WHERE _partition_id IN ({parts}) "
            f"AND ({', '.join(map(quoted, self._keys()))}) IN ({tuples}) AND {where} "
            "ORDER BY _published DESC, _id DESC"
        )
        at = {str(one[_as("_id")]): int(one["mq_published"]) for one in keys}
        return [
            Example(
                id=str(row["_id"]),
                published=int(row["mq_published"]),
                sequence=int(row["_sequence"]),
                ancestors=tuple(row["_ancestors"]),
                models=dict(row["_models"]),
                shown=bool(row["_visible"]),
                columns={column.name: row[_as(column.name)] for column in self._schema.columns},
            )
            for row in rows
            if at[str(row["_id"])] == int(row["mq_published"])
        ]

    def _values(self, one: dict[str, Any]) -> list[str]:
        """The sorting key of a row as SQL."""
        return [
            f"CAST({text_literal(str(one[_as(name)]))}, {text_literal(self._schema.types[name])})"
            for name in self._keys()
        ]

    def _column(self, name: str) -> str:
        text = quoted(name)
        if name not in self._blobs:
            text = f"leftUTF8(toString({text}), {_LONGEST})"
        return f"{text} AS {quoted(_as(name))}"


def _as(name: str) -> str:
    """What a column is called in an answer: an alias of its own name would be taken for it."""
    return f"mq_{name}"
