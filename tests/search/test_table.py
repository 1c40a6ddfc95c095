"""The nearest rows by ClickHouse alone, where a query as one would write it finds nothing."""

from __future__ import annotations

from typing import Annotated

import pytest

from mqinfer import Column, Row
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.errors import ConfigurationError, SearchError, TableError
from mqinfer.ports import Origin
from mqinfer.search.table import create_vector_index, search_table
from mqinfer.tables.tables import INSERTED, frame_values, schema_of
from tests.search.support import Floats, clustered, exact


class Near(Row, frozen=True, table="near", order_by="name"):
    name: str
    vector: Annotated[list[float], Column("Array(Float32)")]
    colour: str = ""


class Pair(Row, frozen=True, table="pair", order_by="name"):
    name: str
    vector: Annotated[list[float], Column("Array(Float32)")]
    my_vector: Annotated[list[float], Column("Array(Float32)")]


async def stored(
    db: ClickHouse, vectors: Floats, first: int = 0, names: list[str] | None = None, run: str = ""
) -> None:
    """Rows as a sink stores them; of a run they are hidden."""
    names = names or [f"p{n}" for n in range(len(vectors))]
    origins = [
        Origin(f"id{first + n}", run=run, sequence=first + n, published=(1 + first + n) * 10**9)
        for n in range(len(vectors))
    ]
    colours = ["red" if n % 2 else "blue" for n in range(len(vectors))]
    schema = schema_of(Near)
    columns = [*(c.name for c in schema.columns), *(name for name, _ in INSERTED)]
    types = [schema.types[name] for name in columns]
    data = [names, vectors.tolist(), colours, *frame_values(origins)]
    await db.insert(schema.storage, columns, types, data, token=f"{first}{run}")


async def test_two_steps_find_what_a_naive_query_does_not(db: ClickHouse) -> None:
    vectors = clustered(400)
    asked = vectors[0]
    schema = schema_of(Near)
    await db.command(schema.create_storage())
    await db.command(schema.create_view())
    await create_vector_index(db, Near, vectors.shape[1])
    await stored(db, vectors)
    # The nearest ten were hidden by newer rows of theirs, as a promotion hides what it replaces.
    best = exact(vectors, asked, 10)
    await db.command(
        f"INSERT INTO {schema.storage} SELECT * REPLACE (0 AS _visible, "
        f"bitOr(_version, bitShiftLeft(toUInt64(1), 44)) AS _version) FROM {schema.storage} "
        f"WHERE name IN ({', '.join(repr(f'p{n}') for n in best)})"
    )
    naive = await db.query(
        f"SELECT name FROM {schema.storage} FINAL WHERE _visible = 1 "
        "ORDER BY cosineDistance(vector, {v:Array(Float32)}) LIMIT 10",
        {"v": asked.tolist()},
    )
    wanted = [f"p{n}" for n in exact(vectors, asked, 20)[10:]]
    print(naive)
    assert not naive
    rows = await search_table(db, Near, asked, 10)
    assert [row["name"] for row in rows] == wanted
    assert rows[0]["distance"] <= rows[9]["distance"]
    assert len(await search_table(db, Near, asked, 1000)) == 390
    red = await search_table(db, Near, asked, 5, where={"colour": "red"})
    assert [row["colour"] for row in red] == ["red"] * 5
    assert await search_table(db, Near, asked, 5, where={"colour": "none"}) == []

    # Of a key the newest row counts, also where an older one is nearer.
    far = int(exact(vectors, asked, 400)[-1])
    name = wanted[0]
    await stored(db, vectors[far : far + 1], first=1000, names=[name])
    assert [row["name"] for row in await search_table(db, Near, asked, 9, key="name")] == wanted[1:]
    assert (await search_table(db, Near, asked, 1))[0]["name"] == name

    for text, error, more in (
        ("no field 'size'", SearchError, {"where": {"size": 1}}),
        ("not by 'ip'", ConfigurationError, {"metric": "ip"}),
    ):
        with pytest.raises(error, match=text):
            await search_table(db, Near, asked, 5, **more)  # type: ignore[arg-type]


async def test_rows_that_are_there_are_indexed_or_it_is_told_why_not(db: ClickHouse) -> None:
    schema = schema_of(Near)
    await db.command(schema.create_storage())
    await db.command(schema.create_view())
    await stored(db, clustered(200))
    with pytest.raises(TableError, match=r"Near\.vector cannot be indexed: .* 32 elements"):
        await create_vector_index(db, Near, 3)
    left = f"FROM system.mutations WHERE table = '{schema.storage}' AND NOT is_done"
    assert await db.query(f"SELECT command {left}") == []
    await create_vector_index(db, Near, clustered(1).shape[1])
    (size,) = await db.query(
        "SELECT data_compressed_bytes AS size FROM system.data_skipping_indices "
        f"WHERE table = '{schema.storage}'"
    )
    assert size["size"] > 0
    await stored(db, clustered(10), first=5000)  # as before


async def test_another_index_whose_name_is_alike_is_left_alone(db: ClickHouse) -> None:
    schema = schema_of(Pair)
    await db.command(schema.create_storage())
    columns = [column.name for column in schema.columns]
    data = [["a"], [[1.0, 2.0, 3.0]], [[1.0, 2.0]]]
    types = [schema.types[name] for name in columns]
    await db.insert(schema.storage, columns, types, data, token="a")
    await create_vector_index(db, Pair, 2, vector="my_vector")
    names = f"SELECT name FROM system.data_skipping_indices WHERE table = '{schema.storage}'"
    with pytest.raises(TableError, match=r"Pair\.vector cannot be indexed"):
        await create_vector_index(db, Pair, 2)
    assert await db.query(names) == [{"name": "my_vector_nearest"}]
    # One that was there stays, whatever comes of another attempt.
    await create_vector_index(db, Pair, 3)
    await create_vector_index(db, Pair, 3)
    assert len(await db.query(names)) == 2
