"""Jobs by HTTP, with processes: who accepts one may die at once, and who reads its rows as well."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

from mqinfer.settings import Settings
from tests.gateway.test_jobs import ended, lines
from tests.gateway.test_processes import gateway
from tests.support.jobs_app import truth
from tests.support.kills import Deaths, Fleet

APP = "tests.support.jobs_app:app"
MB = 1024 * 1024


async def test_a_gateway_is_killed_that_accepted_a_job_and_workers_that_read_it(
    nats: Settings,
) -> None:
    rows = [{"n": n} for n in range(40)]
    async with gateway(nats, app=APP) as (victim, http), gateway(nats, app=APP) as (_, other):
        body = {"endpoint": "grade", "rows": rows}
        accepted = await http.post("/v1/jobs", json=body, headers={"idempotency-key": "k"})
        assert accepted.status_code == 202
        victim.send_signal(signal.SIGKILL)
        links = accepted.json()["links"]
        assert (await other.get(links["self"])).json()["status"] == "planning"
        fleet = Fleet(Deaths(kills=2, steps=(1, 10), workers=1, seed=5), nats, "jobs")
        running = asyncio.create_task(fleet.run())
        try:
            # Who asks again, elsewhere, has the same job.
            again = await other.post("/v1/jobs", json=body, headers={"idempotency-key": "k"})
            assert again.headers["idempotent-replayed"] == "true"
            assert again.json()["id"] == accepted.json()["id"]
            end = await ended(other, links["self"])
        finally:
            fleet.stop()
            await running
        assert fleet.ends[-signal.SIGKILL] >= 1
        assert end["rows"] == end["progress"]["done"] == 40
        found = lines(await other.get(links["results"]))
        assert [one["row"] for one in found] == list(range(1, 41))
        for n, one in enumerate(found):
            status, answers, errors = truth(n)
            assert (one["status"], len(one["errors"])) == (status, errors)
            assert [answer["data"] for answer in one["answers"]] == answers


def peak(pid: int) -> int:
    """The most memory that a process had, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(found.split()[1]) * 1024


async def test_a_large_file_is_never_in_memory_as_a_whole(nats: Settings, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    row = json.dumps({"n": 1}).encode()
    file.write_bytes((row + b" " * (1023 - len(row)) + b"\n") * (100 * 1024))
    async with gateway(nats, "--max-upload", "200MB", app=APP) as (process, http):
        before = peak(process.pid)
        with file.open("rb") as data:
            stored = await http.post("/v1/files", files={"rows": ("rows.jsonl", data)})
        assert stored.status_code == 201, stored.text
        told = stored.json()["files"]["rows"]
        assert told["size"] == 100 * MB
        assert (Path(str(nats.blobs)) / told["path"]).stat().st_size == 100 * MB
        assert peak(process.pid) - before < 40 * MB
