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


async def _look(db: ClickHouse, took: list[float] | None) -> None:
    """Ask for the newest counts every ten seconds, as whoever watches does."""
    while took is not None:
        start = time.perf_counter()
        await db.query(
            "SELECT key, sum(n) AS n FROM watched__counts WHERE `column` = 'label' AND NOT sealed "
            "GROUP BY key"
        )
        took.append(time.perf_counter() - start)
        await asyncio.sleep(10)


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
        looks: list[float] = []
        per_round = rows // rounds
        for turn in range(rounds + 1):  # the first one warms up
            order = list(sinks) if turn % 2 else list(sinks)[::-1]
            for kind in order:
                items = _items(kind, turn * per_round, per_round, began + turn * per_round / 1000)
                looking = asyncio.create_task(_look(db, looks if kind is Watched else None))
                start = time.perf_counter()
                for first in range(0, len(items), block):
                    await sinks[kind].write(items[first : first + block])
                if turn:
                    seconds[kind].append(time.perf_counter() - start)
                looking.cancel()
                await asyncio.gather(looking, return_exceptions=True)
        rates = {kind: [per_round / one for one in seconds[kind]] for kind in sinks}
        for kind, found in rates.items():
            print(
                f"{kind.__name__:8} blocks of {block:,}: median {statistics.median(found):,.0f} "
                f"rows/s ({min(found):,.0f} to {max(found):,.0f})"
            )
        plain, counted = (statistics.median(rates[kind]) for kind in (Plain, Watched))
        print(f"counting costs {100 * (1 - counted / plain):.1f} % of the rate")
        print(f"a look took {statistics.median(looks):.3f} s (median of {len(looks)})")
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
    parser.add_argument("--rows", type=int, default=400_000, help="into each table")
    parser.add_argument("--block", type=int, default=10_000, help="rows of one insert")
    parser.add_argument("--rounds", type=int, default=10)
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
