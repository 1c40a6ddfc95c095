"""Vectors are counted by the centroid to which they are near; what is far from all is told."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

import numpy as np

from mqinfer import App, Embedding, Row
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.monitor.centroids import FIRST, K, ensure_centroids, found_in
from mqinfer.monitor.counting import FAR
from mqinfer.monitor.places import ensure_counts
from mqinfer.monitor.sealing import keep_counts, seal
from mqinfer.monitor.watched import watched
from mqinfer.ports import Origin
from mqinfer.tables.sink import Sink
from mqinfer.testing import until
from tests.support.replay import Number

HOUR = 3600
FIRST_HOUR = int(time.time()) // HOUR * HOUR - 5 * HOUR


class Seen(Row, frozen=True, table="seen"):
    vector: Annotated[list[float], Embedding()]


app = App("seeing")
eye = app.model("eye")


@app.stage(models=[eye])
async def look(number: Number) -> Seen:
    raise NotImplementedError


def around(rng: Any, directions: Any, count: int) -> Any:
    """Vectors near some directions, as long as they like."""
    which = rng.integers(0, len(directions), count)
    near = directions[which] + 0.05 * rng.standard_normal((count, directions.shape[1]))
    return which, near * rng.uniform(0.5, 20, (count, 1))


async def store(db: ClickHouse, vectors: Any, second: int, name: str, version: str = "1") -> None:
    rows = [
        (
            Seen([float(x) for x in vector]),
            Origin(
                id=f"{name}-{n}",
                ancestors=(f"in-{name}-{n}@2026-05-01",),
                stage="look",
                models={"eye": version},
                published=int((FIRST_HOUR + second) * 1e9),
            ),
        )
        for n, vector in enumerate(vectors)
    ]
    assert await Sink(db, Seen, app="seeing").write(rows) == {}


async def counts(db: ClickHouse, where: str) -> dict[tuple[str, str], int]:
    rows = await db.query(
        f"SELECT version, key, sum(n) AS n FROM seen__counts WHERE {where} GROUP BY ALL"
    )
    return {(row["version"], row["key"]): row["n"] for row in rows}


def test_directions_are_found_whatever_the_length() -> None:
    rng = np.random.default_rng(1)
    directions = np.linalg.qr(rng.standard_normal((32, 32)))[0][:5]
    which, vectors = around(rng, directions, 1500)
    centroids, reach = found_in(vectors)
    assert len(centroids) == K
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    nearest = (unit @ centroids.T).argmax(axis=1)
    for centroid in range(K):
        assert len(set(which[nearest == centroid])) <= 1  # none holds two directions
    assert 0.99 < ((1 - (unit @ centroids.T).max(axis=1)) <= reach).mean() < 1
    assert np.array_equal(found_in(vectors)[0], centroids)  # whoever finds them
    same = np.tile([[1.0, 2.0]], (50, 1))
    assert len(found_in(same)[0]) == 1


async def test_each_version_is_counted_by_its_own_from_when_they_were_found(
    db: ClickHouse,
) -> None:
    rng = np.random.default_rng(2)
    directions = np.linalg.qr(rng.standard_normal((16, 16)))[0]
    (one,) = watched(app)[0]
    schema = await ensure_counts(db, one, "seeing")
    _, first = around(rng, directions[:4], FIRST)
    await store(db, first[:-1], 5, "first")
    assert await ensure_centroids(db, one, schema) == []
    assert await counts(db, "1") == {}
    await store(db, first, 5, "first")
    # As a worker does beside its sinks.
    task = asyncio.create_task(keep_counts(db, [one], "seeing"))

    async def found_them() -> bool:
        return bool(await counts(db, "1"))

    await until(found_them)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await ensure_centroids(db, one, schema) == []
    found = await counts(db, "1")
    assert sum(found.values()) == FIRST
    assert {version for version, _ in found} == {"1"}
    assert 0 < found["1", FAR] <= 0.01 * FIRST
    await seal(db, one, schema)
    assert await counts(db, "sealed") == found

    # Others are far; what has no direction says so; another version has none to be near to.
    _, strange = around(rng, directions[8:12], 50)
    await store(db, [*strange, np.zeros(16), [np.nan] * 16], HOUR + 5, "strange")
    await store(db, directions[:3], HOUR + 5, "other", version="2")
    assert await counts(db, f"step >= toDateTime({FIRST_HOUR + HOUR}, 'UTC')") == {
        ("1", FAR): 50, ("1", "nan"): 2,
    }  # fmt: skip
    await seal(db, one, schema)
    after = await counts(db, "sealed")
    assert sum(after.values()) == FIRST + 52
