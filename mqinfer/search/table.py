"""Table: the nearest rows by ClickHouse alone, in two steps, for those who want no further process.

ClickHouse's index of vectors is used only by a query of the storage itself, without FINAL, and then
the nearest may be rows that the view does not show. A query of the view looks at every row; one of
the storage with FINAL gives fewer rows than asked for, or none, without a word. So: the ids of the
nearest of the storage, then what the view says of these; where that is fewer than were asked for,
more ids; at last every row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from mqinfer.errors import ConfigurationError, SearchError, TableError
from mqinfer.index import Metric
from mqinfer.search.vectors import read
from mqinfer.tables.columns import columns_of
from mqinfer.tables.sql import quoted
from mqinfer.tables.tables import schema_of

if TYPE_CHECKING:
    from mqinfer.message import Row
    from mqinfer.ports import Database

_FETCH: Final = 4  # ids for each row that is wanted, at first
_MOST: Final = 8192  # ids; beyond it every row is looked at
_PAUSE, _LONGEST_PAUSE = 0.05, 5.0  # seconds between two looks at how far an index is
# Of one index: the name of another may begin or end with its name.
_OF_INDEX = "AND NOT is_done AND has(splitByRegexp('[ ()`]+', command), {index:String})"
_THERE: Final = (
    "SELECT name FROM system.data_skipping_indices WHERE database = currentDatabase() "
    "AND table = {storage:String} AND name = {index:String}"
)
_INDEXING: Final = (
    "SELECT latest_fail_reason AS reason FROM system.mutations WHERE database = currentDatabase() "
    f"AND table = {{storage:String}} {_OF_INDEX}"
)
_GIVE_UP: Final = (
    "KILL MUTATION WHERE database = currentDatabase() "
    f"AND table = {{storage:String}} {_OF_INDEX} SYNC"
)
_DISTANCES: Final = {"cosine": "cosineDistance", "l2": "L2Distance"}


async def create_vector_index(
    database: Database,
    kind: type[Row],
    dimensions: int,
    *,
    vector: str = "vector",
    metric: Metric = "cosine",
) -> None:
    """Let ClickHouse index the vectors of a table, also of the rows that are there.

    From then on every row must have a vector of so many dimensions: others are refused. It returns
    when all rows are indexed, which takes a minute for some 50,000 vectors of 1,280 numbers. If it
    is cancelled, the server goes on.

    Args:
        database: with the table.
        kind: of its rows.
        dimensions: of the vectors.
        vector: the field.
        metric: "cosine" or "l2".

    Raises:
        ConfigurationError: ClickHouse indexes by no such metric.
        TableError: the server refuses, or cannot index a row that is there. An index that was not
            there before is taken back then.
        Unavailable: it does not answer.
    """
    storage, column = schema_of(kind).storage, _column(kind, vector)
    made = f"vector_similarity('hnsw', '{_distance(metric)}', {int(dimensions)})"
    table, name = quoted(storage), f"{vector}_nearest"
    asked = {"storage": storage, "index": name}
    before = await database.query(_THERE, asked)
    await database.command(
        f"ALTER TABLE {table} ADD INDEX IF NOT EXISTS {quoted(name)} {quoted(column)} TYPE {made}"
    )
    try:
        # Not by mutations_sync: a statement that takes so long is given up by whoever sent it.
        await database.command(
            f"ALTER TABLE {table} MATERIALIZE INDEX {quoted(name)} SETTINGS mutations_sync = 0"
        )
        await _indexed(database, asked)
    except TableError as error:
        # ClickHouse would try for ever, and not merge the rows meanwhile.
        await database.command(_GIVE_UP, asked)
        if not before:
            await database.command(f"ALTER TABLE {table} DROP INDEX IF EXISTS {quoted(name)}")
        raise TableError(f"{kind.__name__}.{vector} cannot be indexed: {error}") from None


async def _indexed(database: Database, asked: Mapping[str, str]) -> None:
    """Return when all rows are; raises TableError with what is in the way."""
    pause = _PAUSE
    while left := await database.query(_INDEXING, asked):
        if reason := max(str(row["reason"]) for row in left):
            raise TableError(reason)
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


async def search_table(
    database: Database,
    kind: type[Row],
    vector: Any,
    k: int = 10,
    *,
    key: str | None = None,
    field: str = "vector",
    metric: Metric = "cosine",
    where: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """The nearest rows of a table, nearest first.

        rows = await search_table(database, PictureVector, vector, 10, key="picture_id")

    Args:
        database: with the table.
        kind: of its rows.
        vector: that they are compared with.
        k: the most rows; fewer where there are fewer.
        key: the field of which only the newest row counts; None: each row counts.
        field: of the vector.
        metric: "cosine" or "l2".
        where: field -> the value that rows have.

    Returns:
        What the view shows of each, and `distance`.

    Raises:
        SearchError: the vector cannot be searched for, or there is no such field.
        ConfigurationError: there is no such metric here.
        TableError: the server refuses.
        Unavailable: it does not answer.
    """
    if type(k) is not int or k < 1:
        raise SearchError(f"k={k!r} must be 1 at least")
    query = read(vector, metric, None)
    schema, parameters = schema_of(kind), {"v": query.tolist(), **_values(where)}
    distance = f"{_distance(metric)}({quoted(_column(kind, field))}, {{v:Array(Float32)}})"
    conditions = [
        f"{quoted(_column(kind, name))} = {{w{n}:{schema.types[_column(kind, name)]}}}"
        for n, name in enumerate(where or {})
    ]
    own = f"length({quoted(_column(kind, field))}) = {query.size}"
    fetch = _FETCH * k
    while fetch <= max(_MOST, _FETCH * k):
        # As plain as this: a condition, or FINAL, and the index is not used, or is used wrongly.
        nearest = f"SELECT _id FROM {quoted(schema.storage)} ORDER BY {distance} LIMIT {fetch}"
        found = await database.query(nearest, {"v": parameters["v"]})
        ids = list({row["_id"] for row in found})
        wanted = ["_id IN {ids:Array(String)}", own, *conditions]
        rows = await database.query(
            _nearest(schema.name, distance, wanted, k, key and _column(kind, key)),
            {**parameters, "ids": ids},
        )
        if len(rows) >= k or len(found) < fetch:
            return rows
        fetch *= 2
    every = _nearest(schema.name, distance, [own, *conditions], k, key and _column(kind, key))
    return await database.query(every, parameters)


def _nearest(view: str, distance: str, conditions: list[str], k: int, key: str | None) -> str:
    where = " AND ".join(conditions)
    if key is not None:
        # Of the keys that are near the newest rows, wherever those are.
        name = quoted(key)
        newest = (
            f"SELECT {name}, max((_sequence, _id)) FROM {quoted(view)} "
            f"WHERE {name} IN (SELECT {name} FROM {quoted(view)} WHERE {where}) GROUP BY {name}"
        )
        where += f" AND ({name}, (_sequence, _id)) IN ({newest})"
    return (
        f"SELECT *, {distance} AS distance FROM {quoted(view)} WHERE {where} "
        f"ORDER BY distance, _id LIMIT {k}"
    )


def _values(where: Mapping[str, Any] | None) -> dict[str, Any]:
    return {f"w{n}": value for n, value in enumerate((where or {}).values())}


def _column(kind: type[Row], field: str) -> str:
    fields = kind.__struct_fields__
    if field not in fields:
        raise SearchError(f"{kind.__name__} has no field {field!r}; it has {', '.join(fields)}")
    return columns_of(kind)[fields.index(field)].name


def _distance(metric: str) -> str:
    found = _DISTANCES.get(metric)
    if found is None:
        raise ConfigurationError(
            f"ClickHouse searches by {' or '.join(_DISTANCES)}, not by {metric!r}"
        )
    return found
