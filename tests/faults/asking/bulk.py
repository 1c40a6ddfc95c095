"""Jobs: files submitted by a command that may be killed, or by HTTP, and followed to their ends."""

from __future__ import annotations

import asyncio
import csv
import random
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from mqinfer.client import Client
from mqinfer.errors import ConflictError, MqinferError, Unavailable
from mqinfer.jobs.job import Job
from tests.faults.processes import ROOT

from . import wishes
from .posting import Posting
from .tenants import POSTS

T = TypeVar("T")
AGAIN = 0.3  # seconds between tries, while NATS is away


@dataclass
class Bulk:
    """One job.

    Attributes:
        number: of the job.
        rows: its cells.
        ids: that its submissions gave.
        submitted: how often it was.
        killed: how often the command was.
        odd: what is not as it must be.
        seconds: from the first submission to its end.
        done: whether it has ended, and was compared.
        status: its end.
    """

    number: int
    rows: list[tuple[str, str]]
    ids: set[str] = field(default_factory=set)
    submitted: int = 0
    killed: int = 0
    odd: list[str] = field(default_factory=list)
    seconds: float = 0.0
    done: bool = False
    status: str = ""


def bulk(number: int, rows: int, seed: int) -> Bulk:
    """The job with this number."""
    first = wishes.ROWS + number * rows
    return Bulk(number, [wishes.row(n, seed) for n in range(first, first + rows)])


@dataclass
class Scene:
    """Where jobs are done.

    Attributes:
        client: to follow them.
        folder: for their files.
        app: as the command line has it.
        environ: of the command.
        http: to speak to gateways by.
        gateways: their addresses.
        seed: of what is drawn.
    """

    client: Client
    folder: Path
    app: str
    environ: Mapping[str, str]
    http: aiohttp.ClientSession
    gateways: Sequence[str]
    seed: int


async def through(one: Bulk, scene: Scene) -> None:
    """Submit a job, wait for its end, compare it; try again what failed, and compare once more.

    Every other job goes through the gateways. What is not as it must be is noted.
    """
    began = time.monotonic()
    rng = random.Random(f"job {scene.seed} {one.number}")
    posting = Posting(scene.http, scene.gateways, rng) if one.number % 2 else None
    try:
        await _through(one, scene, posting, rng)
    except (MqinferError, AssertionError) as error:
        one.odd.append(f"{type(error).__name__}: {error}")
    one.seconds = time.monotonic() - began
    one.done = True


async def _through(one: Bulk, scene: Scene, posting: Posting | None, rng: random.Random) -> None:
    path = scene.folder / f"job-{one.number}.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("n", "fan"), *one.rows])

    async def submit(rng: random.Random | None) -> None:
        if posting is None:
            await _submit(one, scene, path, rng)
        else:
            one.ids.add(await posting.submit(path.read_bytes(), f"job-{one.number}"))
            one.submitted += 1

    while not one.ids:
        await submit(rng)
    if rng.random() < 0.3:  # whoever is not sure asks again
        await submit(None)
    if len(one.ids) != 1:
        one.odd.append(f"one key gave {sorted(one.ids)}")
        return
    job = await _ended(one, scene.client, posting)
    await _compare(one, job)
    if rng.random() < 0.5 and job.progress.status != "completed":
        await _patiently(lambda: _retry(job))
        job = await _ended(one, scene.client, posting)
        await _compare(one, job)
    one.status = job.progress.status
    if posting is not None:
        lines = await _patiently(lambda: _lines(job))
        if await posting.results(job.id) != lines:
            one.odd.append("its results by HTTP are others")


async def _submit(one: Bulk, scene: Scene, path: Path, rng: random.Random | None) -> None:
    """Run the command; it may be killed at any moment."""
    one.submitted += 1
    command = ("job", "submit", scene.app, "grade", str(path), "--key", f"job-{one.number}")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mqinfer", *command, "--chunk", "16"),
        cwd=ROOT,
        env=scene.environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        with suppress(TimeoutError):
            deadly = rng is not None and rng.random() < 0.5
            async with asyncio.timeout(rng.uniform(0.5, 3.0) if rng and deadly else 60.0):
                await process.wait()
    finally:
        if process.returncode is None:
            one.killed += 1
            process.kill()
        out, _ = await process.communicate()
    one.ids |= {line for line in out.decode().splitlines() if line}


async def _ended(one: Bulk, client: Client, posting: Posting | None) -> Job:
    """The job, once it has ended."""
    (identity,) = one.ids
    if posting is not None:
        await posting.ended(identity)

    async def look() -> Job:
        job = await client.job(identity, tenant=POSTS if posting is not None else "")
        await job.wait()
        return job

    return await _patiently(look)


async def _retry(job: Job) -> None:
    try:
        await job.retry_failed()
    except (Unavailable, ConflictError):
        raise
    except MqinferError:
        pass  # it was heard the first time, or only rows are left that are no messages


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await call()
        except (Unavailable, ConflictError):
            await asyncio.sleep(AGAIN)


async def _compare(one: Bulk, job: Job) -> None:
    """Whether every row has exactly its result, in the order of the rows."""
    rows = await _patiently(lambda: _rows(job))
    numbers = [row.row for row in rows]
    if numbers != list(range(1, len(one.rows) + 1)):
        one.odd.append(f"its rows are {numbers}")
        return
    ends = []
    for row, (n, fan) in zip(rows, one.rows, strict=True):
        found = [{"n": a.n, "i": a.i, "note": a.note} for a in row.answers]
        errors = [(e.kind, e.reason * (e.kind == "rejected")) for e in row.errors]
        if fan == "many":
            expected = wishes.Truth("failed", (), (("invalid", ""),))
        else:
            expected = wishes.truth("grade", {"n": n, "fan": fan})
        ends.append(expected.status)
        answers = list(expected.answers)
        if (row.status, found, tuple(errors)) != (expected.status, answers, expected.errors):
            one.odd.append(f"row {row.row}, n {n}, fan {fan}: {row}, not {expected}")
    told = job.progress
    counts = (told.succeeded, told.partial, told.failed)
    wanted = tuple(ends.count(end) for end in ("succeeded", "partial", "failed"))
    if counts != wanted:
        one.odd.append(f"its counts are {counts}, not {wanted}")
    end = "completed" if set(ends) == {"succeeded"} else "partial"
    if told.status != end:
        one.odd.append(f"it is {told.status}, not {end}")


async def _rows(job: Job) -> list[Any]:
    return [row async for row in job.results()]


async def _lines(job: Job) -> list[dict[str, Any]]:
    return [line async for line in job.lines()]
