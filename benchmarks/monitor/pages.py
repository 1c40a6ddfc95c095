"""`python -m benchmarks.monitor.pages`: how long the console's Labels page takes, by rows.

A table is filled by the server itself (`INSERT SELECT ... FROM numbers`), evenly over so many days,
with 1,000 labels of which few are frequent; its hours are sealed by one statement a day. Then a
console is asked, over HTTP: the first time, again at once, and again when all that it remembers is
old.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import httpx

from mqinfer import App, Blob, Confidence, Input, Label, Message, Row
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.console.console import Console
from mqinfer.console.options import Options
from mqinfer.fakemodels import FakeModels
from mqinfer.monitor import counting
from mqinfer.monitor.looking import Monitor
from mqinfer.monitor.places import ensure_counts
from mqinfer.monitor.watched import watched
from mqinfer.settings import Settings
from mqinfer.stack.clickhouse.server import ClickHouseServer
from mqinfer.tables.sql import quoted
from mqinfer.testing import Harness, nats_only, until

_DAY = 86_400
_CHUNK = 1_000_000
_OLD = 21.0  # seconds after which all that a console remembers is old


class Picture(Message):
    number: int
    image: Blob | None = None


class Seen(Row, frozen=True, table="seen", order_by="path", kw_only=True):
    path: str
    label: Annotated[str, Label()]
    score: Annotated[float, Confidence()]
    width: Annotated[float, Input()]


app = App("pages")
net = app.model("net")


@app.stage(models=[net])
async def predict(picture: Picture) -> Seen:
    raise NotImplementedError


async def fill(db: ClickHouse, rows: int, days: float) -> None:
    """Store rows, the newest of them now, and seal their hours."""
    (one,) = watched(app)[0]
    schema = await ensure_counts(db, one, app.name)
    began, apart = int(time.time() - days * _DAY), days * _DAY / rows
    at = f"({began} + n * {apart!r})"
    columns = (
        "path, label, score, width, _id, _ancestors, _stage, _run, _models, _sequence, "
        "_published, _visible, _version"
    )
    for begin in range(0, rows, _CHUNK):
        await db.command(
            f"INSERT INTO {quoted(schema.storage)} ({columns}) SELECT "
            "concat('p/', toString(n % 50000), '.jpg'), concat('label-', "
            "toString(toUInt32(least(999, pow((rand(1) + 1) / 4294967297, -0.7) - 1)))), "
            "rand(2) / 4294967296, 224, lower(hex(sipHash128(n))), "
            f"[concat('in-', toString(n), '@', toString(toDate(toUInt32({at}), 'UTC')))], "
            f"'predict', '', map('net', if(n < {rows} * 0.7, '1', '2')), n, "
            f"toDateTime64({at}, 9, 'UTC'), 1, "
            f"bitAnd(17592186044415 - toUInt64({at} * 1000), 17592186044415) "
            f"FROM (SELECT number + {begin} AS n FROM numbers({min(_CHUNK, rows - begin)})) "
            "SETTINGS max_partitions_per_insert_block = 0"
        )
    names = ", ".join(quoted(name) for name, _ in counting.COLUMNS[counting.COUNTS])
    for day in range(int(days) + 2):
        first = began // _DAY * _DAY + day * _DAY
        within = (
            f"_published >= toDateTime({first}, 'UTC') AND "
            f"_published < least(toDateTime({first + _DAY}, 'UTC'), toStartOfHour(now()))"
        )
        query = counting.counted(
            schema, one.fields, quoted(schema.storage), within, extra="'s' AS seal, "
        )
        await db.command(f"INSERT INTO {counting.COUNTS} ({names}) {query}")
    await db.command(
        f"INSERT INTO {counting.SEALS} (* EXCEPT(rows)) SELECT DISTINCT 'seen', "
        "toStartOfHour(toDateTime(_published, 'UTC'), 'UTC'), 's', now64(3), [] "
        f"FROM {quoted(schema.storage)} WHERE _published < toStartOfHour(now())"
    )


def age(folder: Path) -> None:
    """Give each part the time of its day's end, as if it had been written then."""
    today = time.strftime("%Y%m%d", time.gmtime())
    for part in folder.glob("**/20[0-9][0-9][0-1][0-9][0-3][0-9]_*_*_*"):
        day = part.name[:8]
        if part.is_dir() and day != today:
            end = time.mktime(time.strptime(day, "%Y%m%d")) + _DAY
            for file in (part, *part.rglob("*")):
                os.utime(file, (end, end))


async def measure(url: str, folder: Path, times: int) -> None:
    """Ask a console for the page and its parts, and print the milliseconds."""
    db = ClickHouse(url)
    async with nats_only(folder) as settings:
        told = Settings.load(
            {}, nats_url=settings.nats_url, blobs=settings.blobs, clickhouse_url=url, grace=5.0
        )
        with FakeModels({"net:1": {}, "net:2": {}}):
            console = Console(app, Options(port=0), told)
            async with Harness(app, told), asyncio.TaskGroup() as group:
                task = group.create_task(console.run())
                await until(lambda: console.ready or task.done(), "a console")
                assert console.url is not None
                async with httpx.AsyncClient(
                    base_url=console.url, timeout=120, trust_env=False
                ) as http:
                    await _asked("the page, first", http, "/labels?series=seen.label", 1)
                    await _asked("the page, again", http, "/labels?series=seen.label", times)
                    await _asked(
                        "a frequent label's rows",
                        http,
                        "/labels/examples?series=seen.label&key==label-1",
                        times,
                    )
                    await _asked(
                        "a rare label's rows",
                        http,
                        "/labels/examples?series=seen.label&key==label-900",
                        times,
                    )
                    await _asked(
                        "rows of no label",
                        http,
                        "/labels/examples?series=seen.label&key==none",
                        times,
                    )
                    await asyncio.sleep(_OLD)
                    await _asked("the page, all anew", http, "/labels?series=seen.label", 1)
                    await _asked("30 days, first", http, "/labels?series=seen.label&window=30d", 1)
                    await _asked(
                        "30 days, again", http, "/labels?series=seen.label&window=30d", times
                    )
                    await _asked("runs", http, "/runs", times)
                await _timed("a look of the monitor", lambda: _look(db), times)
                console.stop()
    await db.close()


async def _look(db: ClickHouse) -> None:
    await Monitor(app, db).look(time.time())


async def _asked(what: str, http: httpx.AsyncClient, path: str, times: int) -> None:
    async def ask() -> None:
        answer = await http.get(path)
        answer.raise_for_status()

    await _timed(what, ask, times)


async def _timed(what: str, work: Callable[[], Awaitable[None]], times: int) -> None:
    took = []
    for number in range(times):
        if number:
            await asyncio.sleep(1.1)  # or the look before is shown once more
        start = time.perf_counter()
        await work()
        took.append(1000 * (time.perf_counter() - start))
    told = f"{statistics.median(took):8,.0f} ms"
    print(f"{what:28} {told}   ({min(took):,.0f} to {max(took):,.0f})", flush=True)


async def main(rows: int, days: float, times: int) -> None:
    """Fill a server of its own, and measure."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = ClickHouseServer(folder / "clickhouse", log=folder / "clickhouse.log")
        await server.start()
        await server.wait_ready()
        db = ClickHouse(server.url, change_timeout=1800)
        start = time.perf_counter()
        await fill(db, rows, days)
        print(f"{rows:,} rows of {days:g} days: filled in {time.perf_counter() - start:.0f} s")
        await db.close()
        await server.stop()
        age(folder / "clickhouse")
        server = ClickHouseServer(folder / "clickhouse", log=folder / "clickhouse.log")
        await server.start()
        await server.wait_ready()
        try:
            await measure(server.url, folder / "nats", times)
        finally:
            await server.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--days", type=float, default=30.0)
    parser.add_argument("--times", type=int, default=5)
    given = parser.parse_args()
    asyncio.run(main(given.rows, given.days, given.times))
