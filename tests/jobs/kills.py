"""Jobs through kills of workers, which drive and track as well, between any two steps, and of the
server.

    python -m tests.jobs.kills --jobs 4 --rows 2000 --kills 40

Every row is to end once, with exactly what the truth says, in the order of the rows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mqinfer.blob import BlobStore
from mqinfer.errors import Unavailable
from mqinfer.jobs.job import Job
from mqinfer.testing import until
from tests.support import kills
from tests.support.jobs_app import Grade, Photo, app, truth
from tests.support.kills import Deaths


@dataclass
class Plan(Deaths):
    """What is done.

    Attributes:
        jobs: that are submitted.
        rows: of each.
    """

    jobs: int
    rows: int


async def through(plan: Plan, folder: Path, timeout: float) -> dict[str, Any]:
    """Do it, and compare with the truth.

    Raises:
        AssertionError: a job has not ended, or a row not with the truth, or not once.
    """
    async with kills.grounds(plan, app, folder) as grounds:
        harness = grounds.harness
        numbers = [range(at * plan.rows, (at + 1) * plan.rows) for at in range(plan.jobs)]
        jobs = [await harness.client.submit("grade", [Photo(n) for n in one]) for one in numbers]
        async with grounds.fleet("jobs") as fleet:

            async def all_ended() -> bool:
                try:
                    ended = [(await job.status()).status != "open" for job in jobs]
                except Unavailable:  # a busy machine's server takes a while to begin anew
                    return False
                return all(ended) and fleet.deaths >= plan.kills

            await grounds.kill_server()
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
        assert {letter.kind for letter in await harness.dead()} <= {"rejected"}
        return {
            "jobs": plan.jobs,
            "rows": plan.jobs * plan.rows,
            "tried again": len(again),
            **grounds.facts(fleet),
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
    asked = kills.arguments(__doc__, jobs=4, rows=2000, kills=40).parse_args()
    plan = Plan(
        *(asked.jobs, asked.rows),
        kills=asked.kills,
        server_kills=asked.server_kills,
        steps=(1, max(40, 20 * asked.jobs * asked.rows // max(1, asked.kills))),
        seed=asked.seed,
    )
    kills.run(through, plan, asked.timeout)


if __name__ == "__main__":
    main()
