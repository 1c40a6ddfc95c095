"""views: what a query of a table's view costs beside its storage without FINAL.

The same rows, written in 64 blocks over 16 days of birth: in a table by days, which are merged as
workers do it, and in one without days, as tables were before. Each query is asked of the view and
of the storage in turns.
"""

from __future__ import annotations

import datetime
import time
from dataclasses import replace
from typing import Any

from benchmarks import load
from benchmarks.apps import Reading
from benchmarks.results import Figure, Goal, Options, Result, Row
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.tables.merging import Pace, merge, rested
from mqinfer.tables.tables import TableSchema, schema_of

ROWS, BLOCKS, DAYS = 10_000_000, 64, 16
OF_STORAGE = 1.5
_FIRST = datetime.date(2026, 5, 27)
_QUERIES = {
    "mean": "avg(score)",
    "by label": "label, count(), avg(score)",
    "count": "count()",
}
_TAIL = {"by label": " GROUP BY label"}


async def measure(options: Options) -> Result:
    """Fill both tables and ask the same of them in turns."""
    rows = options.amount(ROWS, least=BLOCKS * DAYS)
    found: dict[str, dict[str, list[float]]] = {}
    one_day: list[float] = []
    days = replace(schema_of(Reading), name="by_days")
    flat = replace(schema_of(Reading), name="without_days", by_days=False)
    async with load.servers(options.folder / "stack", clickhouse=True) as (settings, _):
        database = ClickHouse(settings.clickhouse_url, timeout=600, change_timeout=600)
        for schema in (days, flat):
            await _fill(database, schema, rows)
            options.say(f"{schema.name}: {rows:,} rows in {BLOCKS} blocks")
        at_once = Pace(rest=0, share=1e9)
        for partition in await rested(database, days.storage, at_once):
            await merge(database, days.storage, partition)
        await _check(database, rows, days, flat)
        for _ in range(options.repeat):
            for schema in (days, flat):
                seconds = found.setdefault(schema.name, {})
                for name, query in _QUERIES.items():
                    for source in (schema.name, schema.storage):
                        stored = source == schema.storage
                        key = f"{name} {'storage' if stored else 'view'}"
                        where = " WHERE _visible = 1" if stored else ""
                        sql = f"SELECT {query} FROM {source}{where}{_TAIL.get(name, '')}"
                        seconds.setdefault(key, []).append(await _ask(database, sql))
            one_day.append(
                await _ask(
                    database, "SELECT avg(score) FROM by_days WHERE toDate(_born) = '2026-05-29'"
                )
            )
            options.say(", ".join(f"{k} {v[-1]:.3f} s" for k, v in found["by_days"].items()))
        (read,) = await database.query(
            "SELECT sum(rows) AS rows FROM (EXPLAIN ESTIMATE SELECT avg(score) FROM by_days "
            "WHERE toDate(_born) = '2026-05-29')"
        )
        await database.close()
    titles = {"by_days": "by days of birth, merged", "without_days": "without days, 64 parts"}
    result = [
        Row(
            titles[name],
            {key: Figure(tuple(samples), "s") for key, samples in seconds.items()},
        )
        for name, seconds in found.items()
    ]
    ratios = [
        result[0].figures[f"{name} view"].times(result[0].figures[f"{name} storage"])
        for name in _QUERIES
    ]
    return Result(
        "views",
        f"{rows:,} rows in {BLOCKS} blocks over {DAYS} days",
        result,
        goals=[
            *(
                Goal(
                    f"{name}: view, of the storage without FINAL",
                    ratio,
                    OF_STORAGE,
                    at_most=True,
                )
                for name, ratio in zip(_QUERIES, ratios, strict=True)
            ),
            Goal(
                "rows that a query of one day reads, of those of the day",
                read["rows"] / (rows // BLOCKS * (BLOCKS // DAYS)),
                1.0,
                at_most=True,
            ),
        ],
        notes=[f"One day, by the view: {sorted(one_day)[len(one_day) // 2]:.3f} s."],
    )


async def _fill(database: ClickHouse, schema: TableSchema, rows: int) -> None:
    await database.command(schema.create_storage())
    await database.command(schema.create_view())
    await database.command(f"SYSTEM STOP MERGES {schema.storage}")
    size = rows // BLOCKS
    for block in range(BLOCKS):
        day = _FIRST + datetime.timedelta(days=block % DAYS)
        await database.command(
            f"INSERT INTO {schema.storage} (n, station, time, label, score, value, _id, "
            f"_ancestors, _stage, _published, _visible, _version) "
            f"SELECT number + {block * size} AS n, "
            "'s' || toString(n % 1000), toDateTime64('2026-05-27', 6, 'UTC') + n / 100, "
            "['healthy', 'rust', 'blight'][n % 3 + 1], rand(n) / 4294967296, n, "
            f"lower(hex(sipHash128(n))), ['rows-' || toString(n) || '@{day}'], 'measure', "
            "now64(9), 1, 17592186044415 - n "
            f"FROM numbers({size}) SETTINGS optimize_on_insert = 0"
        )
    if schema.by_days:
        await database.command(f"SYSTEM START MERGES {schema.storage}")


async def _ask(database: ClickHouse, sql: str) -> float:
    began = time.perf_counter()
    await database.query(sql)
    return time.perf_counter() - began


async def _check(database: ClickHouse, rows: int, *schemas: Any) -> None:
    expected = rows // BLOCKS * BLOCKS
    for schema in schemas:
        (found,) = await database.query(f"SELECT count() AS n FROM {schema.name}")
        if found["n"] != expected:
            raise RuntimeError(f"{schema.name}: {found['n']:,} rows instead of {expected:,}")
