"""jobs: rows a second of a job, and live requests of the same endpoint without it and beside it.

Live requests are sent at a fixed rate, whatever comes back, and timed from when they were due. One
worker process does all; the handler adds two numbers, so that what is measured is mqinfer's part.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from statistics import median

from msgspec import Struct

import mqinfer
from benchmarks import apps, load
from benchmarks.results import Figure, Goal, Options, Result, Row
from benchmarks.times import quantile
from mqinfer.client import Client
from mqinfer.jobs.job import Job
from mqinfer.settings import Settings

ROWS, RATE, SECONDS, LEAD = 60_000, 40.0, 6.0, 1.0
TIMES_P99 = 3.0
_LIMIT = 120.0  # seconds for an answer


class _Live(Struct, frozen=True):
    """Live requests; milliseconds."""

    p50: float
    p99: float


class _Sample(Struct, frozen=True):
    """One repetition."""

    alone: _Live
    beside: _Live
    submitted: float  # rows a second
    rows: float


async def measure(options: Options) -> Result:
    """Live requests alone, then beside a job, with a worker of its own each time."""
    samples = []
    async with load.servers(options.folder / "stack") as (settings, _):
        for repetition in range(options.repeat):
            sample = await _one(options, settings, f"jobs-{repetition}")
            samples.append(sample)
            options.say(
                f"{sample.rows:,.0f} rows/s; live p99 {sample.alone.p99:.1f} ms without the job, "
                f"{sample.beside.p99:.1f} ms beside it"
            )
    rows = [
        Row("a job's rows", {"rows/s": _figure([one.rows for one in samples], "rows/s")}),
        Row("its submission", {"rows/s": _figure([one.submitted for one in samples], "rows/s")}),
        *(
            Row(
                f"live requests, {RATE:g} a second, {name}",
                {
                    "p50": _figure([one.p50 for one in found], "ms"),
                    "p99": _figure([one.p99 for one in found], "ms"),
                },
            )
            for name, found in (
                ("without a job", [one.alone for one in samples]),
                ("beside it", [one.beside for one in samples]),
            )
        ),
    ]
    times = median(one.beside.p99 / one.alone.p99 for one in samples)
    count = options.amount(ROWS, least=4_000)
    return Result(
        "jobs",
        f"a job of {count:,} rows beside live requests, one worker process",
        rows,
        [Goal("times the p99 of live requests without a job", times, TIMES_P99, at_most=True)],
        [
            "The rows a second are those while live requests came. Each row is a message through a "
            "stage, with its answer and a record stored; a chunk's part is stored in a folder."
        ],
    )


def _figure(found: list[float], unit: str) -> Figure:
    return Figure(tuple(found), unit)


async def _one(options: Options, settings: Settings, name: str) -> _Sample:
    app = apps.plain_of(name)
    count = options.amount(ROWS, least=4_000)
    part = min(1.0, options.scale)
    seconds, lead = max(0.5, SECONDS * part), LEAD * part
    log = options.folder / f"{name}.log"
    worker = ("mqinfer", "worker", "benchmarks.apps:plain")
    async with (
        load.process(log, *worker, environ=load.environ(settings, name)),
        mqinfer.connect(app, settings) as client,
    ):
        first = await client.request(apps.Number(0.0), wait=_LIMIT)
        if await first.result(_LIMIT) != (apps.Affine(1.0),):
            raise RuntimeError("a wrong answer")
        alone = await _live(client, seconds, lead)
        began = time.perf_counter()
        job = await client.submit("affine", ({"x": float(n)} for n in range(count)))
        submitted = count / (time.perf_counter() - began)
        await _begun(job, count // 50)
        before, began = (await job.status()).done, time.perf_counter()
        beside = await _live(client, seconds, lead)
        found = await job.status()
        rows = (found.done - before) / (time.perf_counter() - began)
        if found.status != "open" and options.scale >= 1:
            raise RuntimeError("the job ended before what was to be measured beside it")
        await job.cancel()
        await job.wait()
        if found.failed:
            raise RuntimeError(f"{found.failed:,} rows failed")
    return _Sample(alone, beside, submitted, rows)


async def _begun(job: Job, rows: int) -> None:
    """Return when some rows are done."""
    async with aclosing(aiter(job)) as followed:
        async for progress in followed:
            if progress.done >= rows:
                return


async def _live(client: Client, seconds: float, lead: float) -> _Live:
    """Ask at a fixed rate; what is asked in the first seconds, the lead, is not counted."""
    times: list[float] = []

    async def one(number: int, due: float, counted: bool) -> None:
        request = await client.request(apps.Number(float(number)), wait=_LIMIT)
        if request.answers != (apps.Affine(2.0 * number + 1),):
            raise RuntimeError(f"a wrong answer for {number}: {request}")
        if counted:
            times.append(1e3 * (time.perf_counter() - due))

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(int((lead + seconds) * RATE)):
            due = began + number / RATE
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(number, due, due >= began + lead))
    return _Live(quantile(times, 0.5), quantile(times, 0.99))
