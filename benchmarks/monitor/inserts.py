"""`python -m benchmarks.monitor.inserts`: what counting costs a sink, and how long sealing takes.

The same rows go through the same sinks into two tables, by turns: one that is watched (a label with
its confidence, a number, a place) and one that is not. Then the hours of the watched one are
sealed.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

from benchmarks import load
from mqinfer import App, Confidence, Input, Label, Message, Row
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.monitor.places import ensure_counts
from mqinfer.monitor.sealing import seal
from mqinfer.monitor.watched import watched
from mqinfer.ports import Origin
from mqinfer.tables.sink import Sink

_HOUR = 3600
_EVERY = 10.0  # seconds


class Picture(Message):
    path: str


class Plain(Row, frozen=True, table="plain", order_by="path"):
    path: str
    label: str
    score: float
    width: float
    station: str


class Watched(Row, frozen=True, table="watched", order_by="path"):
    path: str
    label: Annotated[str, Label()]
    score: Annotated[float, Confidence()]
    width: Annotated[float, Input()]
    station: Annotated[str, Input()]


app = App("inserts")
grader = app.model("grader")


@app.stage(models=[grader])
async def predict(picture: Picture) -> Plain | Watched:
    raise NotImplementedError


def _items(kind: Any, first: int, count: int, began: float) -> list[Any]:
    chance = random.Random(first)
    return [
        (
            kind(
                f"pictures/{number % 1000}.jpg",
                f"label-{int(chance.paretovariate(1)) % 1000}",
                chance.random(),
                chance.choice((224.0, 640.0, 1920.0)),
                chance.choice(("north", "south")),
            ),
            Origin(
                id=f"{number:032x}",
                ancestors=(f"in-{number}@2026-05-27",),
                stage="predict",
                models={"grader": "2"},
                published=int((began + (number - first) / 1000) * 1e9),
            ),
        )
        for number in range(first, first + count)
    ]


class _Watcher:
    """Asks for the newest counts every ten seconds of inserts, as whoever watches does.

    Attributes:
        took: seconds that each look took.
    """

    def __init__(self, db: ClickHouse):
        self._db = db
        self._since = _EVERY
        self.took: list[float] = []

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[None]:
        """Look beside what is inserted here, if it is time to."""
        start = time.perf_counter()
        looking: asyncio.Task[None] | None = None
        if self._since >= _EVERY:
            self._since = 0.0
            looking = asyncio.create_task(self._look())
        yield
        self._since += time.perf_counter() - start
        if looking is not None:
            await looking

    async def _look(self) -> None:
        start = time.perf_counter()
        await self._db.query(
            "SELECT key, sum(n) AS n FROM watched__counts WHERE `column` = 'label' AND NOT sealed "
            "GROUP BY key"
        )
        self.took.append(time.perf_counter() - start)


async def _multiply(db: ClickHouse, storage: str, copies: int) -> None:
    """Have so many times as many rows, in the same hours, each with an id of its own."""
    for first in range(1, copies, 10):
        last = min(first + 10, copies)
        await db.command(
            f"INSERT INTO {storage} SELECT * EXCEPT (copy) REPLACE ("
            "concat(_id, '-', toString(copy)) AS _id, "
            "_published + toIntervalMillisecond(copy * 977) AS _published) FROM "
            f"(SELECT * FROM {storage} WHERE position(_id, '-') = 0) ARRAY JOIN "
            f"range({first}, {last}) AS copy SETTINGS insert_deduplicate = 0"
        )


async def _measure(rows: int, block: int, rounds: int, copies: int, folder: Path) -> None:
    began = int(time.time()) // _HOUR * _HOUR - 8 * _HOUR
    async with load.servers(folder / "stack", clickhouse=True) as (settings, _):
        db = ClickHouse(settings.clickhouse_url, timeout=600, change_timeout=600)
        ((one,), _problems) = watched(app)
        schema = await ensure_counts(db, one, app.name)
        sinks = {kind: Sink(db, kind, app=app.name) for kind in (Plain, Watched)}
        seconds: dict[Any, list[float]] = {kind: [] for kind in sinks}
        watcher = _Watcher(db)
        per_round = rows // rounds
        for turn in range(rounds + 1):  # the first one warms up
            order = list(sinks) if turn % 2 else list(sinks)[::-1]
            for kind in order:
                items = _items(kind, turn * per_round, per_round, began + turn * per_round / 1000)
                start = time.perf_counter()
                async with watcher.beside() if turn and kind is Watched else nullcontext():
                    for first in range(0, len(items), block):
                        await sinks[kind].write(items[first : first + block])
                    took = time.perf_counter() - start
                if turn:
                    seconds[kind].append(took)
        for kind, found in seconds.items():
            rates = [per_round / one for one in found]
            print(
                f"{kind.__name__:8} blocks of {block:,}: {per_round * rounds / sum(found):,.0f} "
                f"rows/s; of {rounds} rounds the median {statistics.median(rates):,.0f} "
                f"({min(rates):,.0f} to {max(rates):,.0f})"
            )
        plain, counted = (sum(seconds[kind]) for kind in (Plain, Watched))
        print(f"counting costs {100 * (1 - plain / counted):.1f} % of the rate")
        print(
            f"a look took {statistics.median(watcher.took):.3f} s (median of {len(watcher.took)})"
        )
        await _multiply(db, schema.storage, copies)
        start = time.perf_counter()
        hours = await seal(db, one, schema)
        print(f"{len(hours)} hours sealed in {time.perf_counter() - start:.2f} s")
        (stored,) = await db.query("SELECT count() AS n FROM watched")
        (found_,) = await db.query(
            "SELECT sum(n) AS n FROM watched__counts WHERE `column` = 'label'"
        )
        print(f"{stored['n']:,} rows, {found_['n']:,} counted")
        await db.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4_000_000, help="into each table")
    parser.add_argument("--block", type=int, default=10_000, help="rows of one insert")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument(
        "--copies", type=int, default=1, help="of each row, before hours are sealed"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(
            _measure(options.rows, options.block, options.rounds, options.copies, Path(folder))
        )


if __name__ == "__main__":
    main()
