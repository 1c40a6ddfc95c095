"""An app with an index, and processes that hold it, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import numpy as np
from numpy.typing import NDArray

from mqinfer import Message, wiring
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.errors import Unavailable
from mqinfer.search.keeping import Keeping
from mqinfer.testing import Harness, until
from tests.support.search_app import Vector

Floats = NDArray[np.float32]
DIMENSIONS = 32


def clustered(count: int, seed: int = 0, dimensions: int = DIMENSIONS) -> Floats:
    """Vectors as models give them: some directions, and something around each."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(30, dimensions))
    found = centres[random.integers(0, 30, count)] + 0.5 * random.normal(size=(count, dimensions))
    return found.astype(np.float32)


def exact(vectors: Floats, query: Floats, k: int) -> list[int]:
    """The places of the nearest by the cosine."""
    near = vectors @ query / np.linalg.norm(vectors, axis=1)
    return np.argsort(-near, kind="stable")[:k].tolist()


def messages(vectors: Floats, first: int = 0) -> list[Message]:
    """Pictures p0, p1, ...; the even ones are from the north."""
    return [
        Vector(f"p{n}", one.tolist(), "south" if n % 2 else "north", n)
        for n, one in enumerate(vectors, start=first)
    ]


@asynccontextmanager
async def holding(
    harness: Harness,
    database: ClickHouse | None = None,
    *,
    part: tuple[int, int] = (0, 1),
    every: float = 3600.0,
    linger: float = 0.1,
) -> AsyncIterator[Keeping]:
    """Holds the indexes of the harness's app while inside; entered when all is ready."""
    tools = wiring.keeping(harness.app, harness.services, database, every)
    keeping = Keeping(harness.app, tools, part=part, linger=linger)
    running = asyncio.create_task(keeping.run())
    try:
        await until(lambda: running.done() or not keeping.not_ready(), "shards that are held")
        yield keeping
    finally:
        keeping.stop()
        await running


async def seen(harness: Harness, wanted: int, index: str = "pictures") -> None:
    """Return when an index holds so many vectors."""
    held = next(iter(harness.app.indexes[index].models))
    probe = np.ones(DIMENSIONS, np.float32)

    async def there() -> bool:
        try:
            found = await harness.client.search(index, {held: probe}, min(wanted + 1, 1000))
        except Unavailable:
            return False
        return len(found) == min(wanted, 1000)

    await until(there, f"{wanted} vectors")


def keys(hits: Iterable[object]) -> list[object]:
    return [hit.key for hit in hits]  # type: ignore[attr-defined]
