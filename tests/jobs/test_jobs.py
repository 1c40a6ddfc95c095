"""Jobs on a real nats-server: what came of every row, in the order of the rows."""

from __future__ import annotations

import json
from pathlib import Path

from mqinfer.settings import Settings
from mqinfer.testing import Harness
from tests.support import jobs_app
from tests.support.jobs_app import Grade, Photo, truth


def written(path: Path, numbers: range) -> Path:
    """A file of rows with these numbers, each with a custom id."""
    lines = [json.dumps({"custom_id": f"row-{n}", "n": n}) for n in numbers]
    path.write_text("\n".join(lines) + "\n")
    return path


async def test_a_job_gives_what_came_of_every_row_in_their_order(
    nats: Settings, tmp_path: Path
) -> None:
    path = written(tmp_path / "rows.jsonl", range(300))
    async with Harness(jobs_app.app, nats) as harness, harness.worker():
        job = await harness.client.submit("grade", path)
        seen = [one async for one in job]
        done = [one.done for one in seen]
        assert done == sorted(done)
        assert (seen[-1].status, seen[-1].done, seen[-1].rows) == ("partial", 300, 300)
        ends = [truth(n)[0] for n in range(300)]
        counts = (seen[-1].succeeded, seen[-1].partial, seen[-1].failed)
        assert counts == tuple(ends.count(end) for end in ("succeeded", "partial", "failed"))
        rows = [row async for row in job.results()]
        assert [row.row for row in rows] == list(range(1, 301))
        for n, row in enumerate(rows):
            status, answers, errors = truth(n)
            assert row.custom_id == f"row-{n}"
            assert row.status == status
            assert row.answers == tuple(Grade(**one) for one in answers)
            assert [(one.kind, one.reason) for one in row.errors] == [
                ("rejected", "too dark")
            ] * errors
        errors = [row async for row in job.errors()]
        assert errors == [row for row in rows if row.errors]
        assert len(await harness.messages(Photo)) == 300
        assert len(list((Path(str(nats.blobs)) / "jobs" / job.id).glob("*/_SUCCESS"))) == 1
        assert [one.id for one in await harness.client.jobs()] == [job.id]
        again = await harness.client.job(job.id)
        assert await again.status() == seen[-1]
