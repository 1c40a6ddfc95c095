"""inference: pictures from JetStream to rows in ClickHouse, and a tiny model called by many.

The pictures' limit is `benchmarks.pictures_direct`: the same decoder, the same shrinking and the
same Triton, the pictures in memory and the answers thrown away, at the best of some batch sizes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import apps, lite0, load, tiny
from benchmarks.pictures_direct import read_folder
from benchmarks.results import Figure, Goal, Options, Result, Row
from mqinfer import Blob
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.adapters.jetstream import JetStream
from mqinfer.codec import Codec
from mqinfer.errors import TableError
from mqinfer.image import encode_jpeg
from mqinfer.settings import Settings

PICTURES, DISTINCT, HEIGHT, WIDTH = 4_000, 104, 480, 640
BATCHES = ((8, 2), (8, 4), (16, 2), (16, 4), (32, 2))  # size, in flight
TRIAL = 600  # pictures for each of them
LOOK = 0.1  # looking more often takes a tenth of what is measured
CALLS, IN_FLIGHT, LONE = 10_000, 256, 500
OF_LIMIT, TIMES, ADDED_MS = 0.9, 4.0, 0.3
MLWATCH = "MLwatch published 15 pictures/s for its whole pipeline on four machines of 2 cores."


async def measure(options: Options) -> Result:
    """Pictures, then the tiny model, on the same Triton."""
    models, folder = options.folder / "models", options.folder / "jpegs"
    await asyncio.to_thread(_prepare, models, folder)
    servers = load.servers(
        options.folder / "stack",
        triton=True,
        clickhouse=True,
        models=models,
        triton_control="none",
    )
    async with servers as (settings, jetstream):
        rows, goals, notes = await _pictures(options, settings, jetstream, folder)
        more, other_goals = await _tiny(options, settings)
    return Result(
        "inference",
        f"{WIDTH}x{HEIGHT} JPEGs through EfficientNet-Lite0 in int8; a tiny model",
        rows + more,
        goals + other_goals,
        [*notes, MLWATCH],
        chart="items/s",
    )


def _prepare(models: Path, folder: Path) -> None:
    lite0.build_repository(models)
    tiny.build_repository(models)
    folder.mkdir()
    for number, pixels in enumerate(lite0.photographs(DISTINCT, HEIGHT, WIDTH)):
        (folder / f"{number:03d}.jpg").write_bytes(encode_jpeg(pixels, quality=90))


# --- pictures -----------------------------------------------------------------------------------


async def _pictures(
    options: Options, settings: Settings, jetstream: JetStream, folder: Path
) -> tuple[list[Row], list[Goal], list[str]]:
    count = options.amount(PICTURES, least=DISTINCT)
    jpegs = read_folder(folder)
    kilobytes = sum(map(len, jpegs)) / len(jpegs) / 1e3
    batch, in_flight = await _best(options, settings, folder)
    rates: dict[str, list[float]] = {"direct": [], "ours": []}
    cpu: dict[str, list[float]] = {"direct": [], "ours": []}
    whole: dict[str, list[float]] = {"direct": [], "ours": []}
    database = ClickHouse(settings.clickhouse_url)
    for repetition in range(options.repeat):
        before = load.processor()
        limit = await _direct(options, settings, folder, batch, in_flight, count)
        rates["direct"].append(count / limit["wall"])
        cpu["direct"].append(1e3 * limit["cpu"] / count)
        # The client is gone, and with it its part.
        whole["direct"].append(cpu["direct"][-1] + 1e3 * (load.processor() - before) / count)
        app = f"pictures-{repetition}"
        rate, used, everywhere = await _pipeline(
            options, settings, jetstream, database, app, jpegs, count
        )
        rates["ours"].append(rate)
        cpu["ours"].append(used)
        whole["ours"].append(everywhere)
        await _check(database, count, limit["labels"])
        options.say(f"{rates['direct'][-1]:,.0f} pictures/s by hand, {rate:,.0f} by mqinfer")
    await database.close()
    rows = [
        Row(
            title,
            {
                "items/s": Figure(tuple(rates[name]), "items/s"),
                "client ms an item": Figure(tuple(cpu[name]), "ms"),
                "all processes": Figure(tuple(whole[name]), "ms"),
            },
        )
        for name, title in (
            ("direct", "pictures, by hand: no queue, no database"),
            ("ours", "pictures, mqinfer: JetStream to ClickHouse"),
        )
    ]
    direct, ours = (row.figures["items/s"] for row in rows)
    goal = Goal("of the limit, pictures end to end", ours.times(direct), OF_LIMIT)
    notes = [
        f"{count:,} pictures a repetition, {len(jpegs)} distinct ones of {kilobytes:.0f} kB; "
        f"by hand in batches of {batch}, {in_flight} in flight, the best of {len(BATCHES)} ways.",
        "mqinfer: from a tenth of the rows stored to nine tenths; all of them are checked after.",
        "Client: processor time of the process that decodes and asks, without its start; "
        "all processes: with that of the servers, for an item.",
    ]
    return rows, [goal], notes


async def _best(options: Options, settings: Settings, folder: Path) -> tuple[int, int]:
    """The batch size, and the number of batches in flight, that are fastest by hand."""
    found = {}
    for batch, in_flight in BATCHES:
        count = options.amount(TRIAL, least=DISTINCT)
        done = await _direct(options, settings, folder, batch, in_flight, count)
        found[batch, in_flight] = count / done["wall"]
    best = max(found, key=lambda way: found[way])
    options.say(f"by hand best in batches of {best[0]}, {best[1]} in flight")
    return best


async def _direct(
    options: Options, settings: Settings, folder: Path, batch: int, in_flight: int, count: int
) -> dict[str, Any]:
    log = options.folder / "direct.log"
    arguments = (settings.triton_url, str(folder), str(batch), str(in_flight), str(count))
    async with load.process(log, "benchmarks.pictures_direct", *arguments) as client:
        async with asyncio.timeout(300):
            await client.process.wait()
        client.check()
    done: dict[str, Any] = json.loads(log.read_text().splitlines()[-1])
    return done


async def _pipeline(
    options: Options,
    settings: Settings,
    jetstream: JetStream,
    database: ClickHouse,
    app: str,
    jpegs: list[bytes],
    count: int,
) -> tuple[float, float, float]:
    """Pictures a second, counted where rows are stored; ms for one of the worker, of everything."""
    await load.create(jetstream, app)
    await load.fill(jetstream, f"{app}.picture", _messages(jpegs, count))
    await load.expect(jetstream, app, f"{app}.picture", count)
    async with load.process(
        options.folder / f"{app}.log",
        *("mqinfer", "worker", "benchmarks.apps:pictures"),
        environ=load.environ(settings, app),
    ) as worker:
        # Rows are stored in blocks: begin and end when one is, and count what lies between.
        start = time.perf_counter()
        began, first = await _stored(database, count // 10, worker)
        if first == count:  # of so few that they are one block
            began, first = start, 0
        before, everywhere = worker.cpu(), load.processor()
        ended, last = await _stored(database, max(first + 1, count * 9 // 10), worker)
        used, everywhere = worker.cpu() - before, load.processor() - everywhere
        await _stored(database, count, worker)
    await load.drop(jetstream, app)
    stored = last - first
    return stored / (ended - began), 1e3 * used / stored, 1e3 * everywhere / stored


async def _stored(database: ClickHouse, least: int, worker: load.Process) -> tuple[float, int]:
    """When the table has so many rows, and how many it has then."""
    async with asyncio.timeout(600):
        while True:
            found = 0
            with contextlib.suppress(TableError):  # it is not there yet
                (row,) = await database.query("SELECT count() AS n FROM seen__storage")
                found = int(row["n"])
            if found >= least:
                return time.perf_counter(), found
            worker.check()
            await asyncio.sleep(LOOK)


def _messages(jpegs: list[bytes], count: int) -> Iterator[bytes]:
    encode = Codec(None).encode
    return (encode(apps.Picture(n, Blob(jpegs[n % len(jpegs)]))) for n in range(count))


async def _check(database: ClickHouse, count: int, labels: list[int]) -> None:
    """One row for each picture, with the class that was found by hand."""
    rows = await database.query("SELECT n, label FROM seen")
    found = {row["n"]: row["label"] for row in rows}
    if not len(rows) == len(found) == count:
        raise RuntimeError(f"{len(rows)} rows, {len(found)} distinct, for {count} pictures")
    same = sum(label == labels[n % len(labels)] for n, label in found.items())
    # Batches of other sizes are summed in another order: a tie may fall to the other side.
    if same < 0.97 * count:
        raise RuntimeError(f"only {same} of {count} pictures are classified as by hand")
    await database.command("TRUNCATE TABLE seen__storage")


# --- the tiny model -----------------------------------------------------------------------------


async def _tiny(options: Options, settings: Settings) -> tuple[list[Row], list[Goal]]:
    count = options.amount(CALLS, least=500)
    rates: dict[str, list[float]] = {"gathered": [], "direct": []}
    lone: dict[str, list[float]] = {"gathered": [], "direct": []}
    async with tiny.Callers(settings.triton_url) as callers:
        calls = {"gathered": callers.gathered, "direct": callers.direct}
        for call in calls.values():
            await tiny.rate(call, 500, IN_FLIGHT)  # connections, and what is compiled at first
        for _ in range(options.repeat):
            for name, call in calls.items():
                rates[name].append(await tiny.rate(call, count, IN_FLIGHT))
            times = await tiny.lone(list(calls.values()), options.amount(LONE))
            for name, sample in zip(calls, times, strict=True):
                lone[name].append(median(sample))
            options.say(
                f"tiny model {rates['gathered'][-1]:,.0f} calls/s gathered, "
                f"{rates['direct'][-1]:,.0f} one by one"
            )
    rows = [
        Row(
            title,
            {
                "items/s": Figure(tuple(rates[name]), "items/s"),
                "lone call p50": Figure(tuple(lone[name]), "ms"),
            },
        )
        for name, title in (
            ("direct", f"tiny model, one request a call, {IN_FLIGHT} in flight"),
            ("gathered", f"tiny model, mqinfer, {IN_FLIGHT} in flight"),
        )
    ]
    added = median(lone["gathered"]) - median(lone["direct"])
    return rows, [
        Goal("x one request a call", median(rates["gathered"]) / median(rates["direct"]), TIMES),
        Goal("ms added to a lone call, p50", added, ADDED_MS, at_most=True),
    ]
