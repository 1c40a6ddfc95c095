"""`mqinfer job` on a real nats-server."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

from mqinfer.settings import Settings
from mqinfer.testing import Harness
from tests.jobs.test_jobs import written
from tests.support import jobs_app
from tests.support.jobs_app import truth

APP = "tests.support.jobs_app:app"


async def test_submit_watch_results_cancel_and_retry(
    nats: Settings, told: Callable[..., Awaitable[str]], tmp_path: Path
) -> None:
    path = written(tmp_path / "rows.jsonl", range(40))
    blobs = ("--blobs", str(nats.blobs))

    async def ask(*arguments: str, code: int = 0) -> str:
        return await told("job", *arguments, *blobs, code=code)

    async with Harness(jobs_app.app, nats) as harness:
        async with harness.worker():
            out = await ask("submit", APP, "grade", str(path), "--key", "k", "--wait")
            identity = out.strip()
            assert identity.startswith("job-grade-")
            facts = json.loads(await ask("status", APP, identity, "--json"))
            assert (facts["status"], facts["rows"], facts["done"]) == ("partial", 40, 40)
            ends = [truth(n)[0] for n in range(40)]
            assert facts["failed"] == ends.count("failed")
            shown = [
                json.loads(line) for line in (await ask("results", APP, identity)).splitlines()
            ]
            assert [one["row"] for one in shown] == list(range(1, 41))
            for n, one in enumerate(shown):
                status, answers, errors = truth(n)
                assert (one["custom_id"], one["status"]) == (f"row-{n}", status)
                assert [answer["data"] for answer in one["answers"]] == answers
                assert one["errors"] == [{"kind": "rejected", "reason": "too dark"}] * errors
            only = (await ask("results", APP, identity, "--errors")).splitlines()
            assert [json.loads(line) for line in only] == [one for one in shown if one["errors"]]
            assert (await ask("submit", APP, "grade", str(path), "--key", "k")).strip() == identity
            lines = (await ask("watch", APP, identity, "--json")).splitlines()
            assert json.loads(lines[-1])["status"] == "partial"
            assert "is partial: 40 of 40 rows" in await ask("watch", APP, identity)
            assert "is open: 40 of 40" in await ask("retry-failed", APP, identity)
            assert "is partial" in await ask("watch", APP, identity)
            assert "has ended" not in await ask("cancel", APP, identity)
        other = (await ask("submit", APP, "grade", str(path))).strip()
        assert "has not ended yet" in await ask("retry-failed", APP, other, code=1)
        assert f"{other} is canceled: 0 of 40" in await ask("cancel", APP, other)
        assert "canceled: 0 of 40" in await ask("watch", APP, other, code=1)
        listed = json.loads(await told("job", "list", APP, "--json"))
        assert [one["id"] for one in listed] == [identity, other]
        assert (await told("job", "list", APP)).endswith("2 jobs\n")
        assert "no job" in await ask("status", APP, "job-grade-" + "0" * 32, code=1)
        assert "no file or folder" in await ask("submit", APP, "grade", "nowhere.csv", code=2)
        assert "has no endpoint 'other'" in await ask("submit", APP, "other", str(path), code=2)
