"""Centroids: directions to which vectors are near, found once for each version of a model.

So a vector, too, is one of few keys: the nearest of 16, or `far` from all of them. They are found
among the first vectors there are and never again: what is counted today can be compared with what
was counted before, as with the bins of numbers. Spherical k-means (Dhillon, Modha, Concept
decompositions for large sparse text data using clustering, 2001), begun as k-means++ says.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mqinfer.monitor.counting import CENTROIDS, COLUMNS, centroids_of, whose_sql
from mqinfer.tables.sql import quoted

if TYPE_CHECKING:
    from mqinfer.monitor.watched import Field, Watched
    from mqinfer.ports import Database
    from mqinfer.tables.tables import TableSchema

    Floats = np.ndarray[Any, np.dtype[np.float64]]

K: Final = 16
FIRST: Final = 1_000  # vectors that there must be
SAMPLE: Final = 2_000  # that are looked at
_FAR: Final = 0.995  # of the vectors are no farther from their centroid than what is not `far`
_DAYS: Final = 31
_ROUNDS: Final = 25


def found_in(vectors: Any) -> tuple[Floats, float]:
    """The centroids of vectors, and the distance (1 - cosine) beyond which one is far from all.

    Args:
        vectors: of shape (vectors, dimensions), none of them zero or not finite.
    """
    given = np.asarray(vectors, np.float64)
    given = given / np.linalg.norm(given, axis=1, keepdims=True)
    rng = np.random.default_rng(0)
    centroids = given[rng.integers(len(given))][None]
    while len(centroids) < K:
        away = np.clip(1 - (given @ centroids.T).max(axis=1), 0, None)
        if away.sum() < 1e-9:  # there are no more directions
            break
        centroids = np.vstack([centroids, given[rng.choice(len(given), p=away / away.sum())]])
    for _ in range(_ROUNDS):
        nearest = (given @ centroids.T).argmax(axis=1)
        sums = np.zeros_like(centroids)
        np.add.at(sums, nearest, given)
        size = np.linalg.norm(sums, axis=1, keepdims=True)
        centroids = np.where(size > 1e-9, sums / np.maximum(size, 1e-9), centroids)
    away = 1 - (given @ centroids.T).max(axis=1)
    return centroids, float(np.quantile(away, _FAR)) + 1e-6


async def ensure_centroids(db: Database, watched: Watched, schema: TableSchema) -> list[str]:
    """Find the centroids of each version that has vectors enough and none yet.

    Args:
        db: that has the table.
        watched: the table.
        schema: of it as it is there.

    Returns:
        The columns and versions whose centroids were found, in words.

    Raises:
        TableError, PermissionDenied, Unavailable: ClickHouse refused or does not answer.
    """
    told = []
    for field in (field for field in watched.fields if field.what == "embedding"):
        for model, version in await _lacking(db, schema, field):
            vectors = await _sample(db, schema, field, model, version)
            centroids, reach = await asyncio.to_thread(found_in, vectors)
            row = (
                *(schema.name, field.column, model, version),
                *(uuid.uuid4().hex, time.time(), centroids.tolist(), reach),
            )
            names, types = zip(*COLUMNS[CENTROIDS], strict=True)
            data = [[value] for value in row]
            await db.insert(CENTROIDS, names, types, data, token=str(row[4]))
            told.append(f"{field.column} of {model or 'no model'} {version}")
    return told


def _counted(field: Field) -> str:
    """SQL: whether a row's vector has a direction."""
    name = quoted(field.column)
    return (
        f"_published >= now() - INTERVAL {_DAYS} DAY AND length({name}) > 0 "
        f"AND isFinite(L2Norm({name})) AND L2Norm({name}) > 0"
    )


async def _lacking(db: Database, schema: TableSchema, field: Field) -> list[tuple[str, str]]:
    model, version = whose_sql(field)
    rows = await db.query(
        f"SELECT {model} AS model, {version} AS version FROM {quoted(schema.storage)} "
        f"WHERE {_counted(field)} GROUP BY model, version HAVING count() >= {FIRST} "
        f"AND (model, version) NOT IN (SELECT model, version FROM ({centroids_of(schema, field)}))"
    )
    return [(str(row["model"]), str(row["version"])) for row in rows]


async def _sample(
    db: Database, schema: TableSchema, field: Field, model: str, version: str
) -> list[list[float]]:
    model_sql, version_sql = whose_sql(field)
    name = quoted(field.column)
    rows = await db.query(
        f"SELECT {name} AS vector FROM {quoted(schema.storage)} WHERE {_counted(field)} "
        f"AND {model_sql} = {{model:String}} AND {version_sql} = {{version:String}} "
        f"ORDER BY length({name}) DESC, cityHash64(_id) LIMIT {SAMPLE}",
        {"model": model, "version": version},
    )
    longest = len(rows[0]["vector"])
    return [list(row["vector"]) for row in rows if len(row["vector"]) == longest]
