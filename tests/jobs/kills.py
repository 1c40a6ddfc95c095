"""Jobs through kills of workers, which drive and track as well, between any two steps, and of the
server.

    python -m tests.jobs.kills --jobs 4 --rows 2000 --kills 40

Every row is to end once, with exactly what the truth says, in the order of the rows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mqinfer.blob import BlobStore
from mqinfer.jobs.job import Job
from mqinfer.settings import Settings
from mqinfer.stack import NatsServer
from mqinfer.testing import Harness, until
from tests.joins.kills import Fleet
from tests.support.jobs_app import Grade, Photo, app, truth


@dataclass
class Plan:
    """What is done.

    Attributes:
        jobs: that are submitted.
        rows: of each.
        kills: of workers, each between two steps.
        server_kills: of NATS.
        steps: the least and the most that a worker takes before it dies.
        workers: at once.
        seed: of what is random.
    """

    jobs: int
    rows: int
    kills: int
    server_kills: int = 0
    steps: tuple[int, int] = (1, 40)
    workers: int = 2
    seed: int = 0


async def through(plan: Plan, folder: Path, timeout: float) -> dict[str, Any]:
    """Do it, and compare with the truth.

    Raises:
        AssertionError: a job has not ended, or a row not with the truth, or not once.
    """
    server = NatsServer(folder / "nats", log=folder / "nats.log")
    await server.start()
    try:
        await server.wait_ready(60)
        settings = Settings.load({}, nats_url=server.url, blobs=str(folder / "blobs"), grace=5.0)
        async with Harness(app, settings) as harness:
            return await _through(plan, harness, server, timeout)
    finally:
        await server.stop()


async def _through(
    plan: Plan, harness: Harness, server: NatsServer, timeout: float
) -> dict[str, Any]:
    began = time.monotonic()
    fleet = Fleet(plan, harness.settings, "jobs")
    pick = random.Random(plan.seed + 1)
    numbers = [range(at * plan.rows, (at + 1) * plan.rows) for at in range(plan.jobs)]
    jobs = [await harness.client.submit("grade", [Photo(n) for n in one]) for one in numbers]
    async with asyncio.TaskGroup() as group:
        group.create_task(fleet.run())

        async def all_ended() -> bool:
            ended = [(await job.status()).status != "open" for job in jobs]
            return all(ended) and fleet.deaths >= plan.kills

        try:
            for _ in range(plan.server_kills):
                await asyncio.sleep(pick.uniform(1.0, 4.0))
                server.kill()
                await server.start()
                await server.wait_ready(60)
            await until(all_ended, "the end of each job", timeout)
            for job, one in zip(jobs, numbers, strict=True):
                await _compare(harness.client.blobs, job, one)
            # What failed fails again; what has succeeded is not touched.
            again = [job for job in jobs if job.progress.status != "completed"]
            for job in again:
                await job.retry_failed()
            await until(all_ended, "the end of each job's second round", timeout)
            for job, one in zip(jobs, numbers, strict=True):
                await _compare(harness.client.blobs, job, one)
        finally:
            fleet.stop()
    assert {letter.kind for letter in await harness.dead()} <= {"rejected"}
    return {
        "jobs": plan.jobs,
        "rows": plan.jobs * plan.rows,
        "kills": fleet.ends[-signal.SIGKILL],
        "server kills": plan.server_kills,
        "tried again": len(again),
        "seconds": round(time.monotonic() - began, 1),
    }


async def _compare(store: BlobStore, job: Job, numbers: range) -> None:
    rows = [row async for row in job.results()]
    assert [row.row for row in rows] == list(range(1, len(numbers) + 1))
    for n, row in zip(numbers, rows, strict=True):
        status, answers, errors = truth(n)
        assert row.answers == tuple(Grade(**one) for one in answers), (n, row)
        assert (row.status, len(row.errors)) == (status, errors), (n, row)
    found = job.progress
    ends = [truth(n)[0] for n in numbers]
    counts = (found.succeeded, found.partial, found.failed)
    assert counts == tuple(ends.count(end) for end in ("succeeded", "partial", "failed"))
    assert found.status == ("completed" if set(ends) == {"succeeded"} else "partial")
    await compare_files(store, job, numbers)


async def compare_files(store: BlobStore, job: Job, numbers: range) -> None:
    """What lies in the blob store of a job that has ended is the truth, too."""
    files = job.facts()["files"]
    lines = [json.loads(line) for line in (await store.get(files["results"])).splitlines()]
    assert [one["row"] for one in lines] == list(range(1, len(numbers) + 1))
    for n, line in zip(numbers, lines, strict=True):
        status, answers, errors = truth(n)
        assert [one["data"] for one in line["answers"]] == answers, (n, line)
        assert (line["status"], len(line["errors"])) == (status, errors), (n, line)
    wrong = [json.loads(line) for line in (await store.get(files["errors"])).splitlines()]
    assert wrong == [line for line in lines if line["errors"]]


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--server-kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--timeout", type=float, default=3600)
    asked = parser.parse_args()
    most = max(40, 20 * asked.jobs * asked.rows // max(1, asked.kills))
    plan = Plan(
        *(asked.jobs, asked.rows, asked.kills, asked.server_kills),
        steps=(1, most),
        seed=asked.seed,
    )
    print(f"seed {plan.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(through(plan, Path(folder), asked.timeout))), flush=True)


if __name__ == "__main__":
    main()
