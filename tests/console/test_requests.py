"""Requests and jobs on their page: from what is kept, with their actions."""

from __future__ import annotations

import html
import re
from pathlib import Path

from mqinfer.settings import Settings
from mqinfer.testing import until
from tests.support.console import Served, serving
from tests.support.console_app import Photo


def ids(text: str) -> list[str]:
    """The requests and jobs of a page, in its order."""
    return re.findall(r'id="item-([\w-]+)"', text)


async def page(served: Served, query: str = "") -> str:
    found = await served.http.get(f"/requests{query}")
    assert found.status_code == 200
    return found.text


async def test_requests(nats: Settings, tmp_path: Path) -> None:
    async with serving(nats) as served:
        http, client = served.http, served.harness.client
        assert "None is kept" in await page(served)
        waits = await client.request(Photo("p", leaves=3), endpoint="grade", tenant="acme")

        async def waiting() -> bool:
            shown = await page(served)
            return ids(shown) == [waits.id] and "open" in shown

        await until(waiting, "a request that waits")
        one = {"id": waits.id, "tenant": "acme"}
        told = html.unescape((await http.get("/requests/request", params=one)).text)
        assert '"name": "p"' in told
        async with served.harness.worker():
            await waits.wait(120)
            rejected = await client.request(Photo("none"), endpoint="grade", wait=30)
        assert rejected.status == "failed"

        async def both() -> bool:
            return ids(await page(served)) == [rejected.id, waits.id]

        await until(both, "both, the newest first")
        told = (await http.get("/requests/request", params=one)).text
        assert told.count("<h3>Answer") == 3
        rows = re.findall(r'<th scope="row">(\w+)</th><td class="n">(\d+)</td>', told)
        assert rows == [("cut", "1"), ("grade", "3")]
        assert (
            "no photograph"
            in (await http.get("/requests/request", params={"id": rejected.id})).text
        )
        # The tenant is part of who it is.
        assert (await http.get("/requests/request", params={"id": waits.id})).status_code == 400
        assert ids(await page(served, "?status=failed")) == [rejected.id]
        assert ids(await page(served, "?endpoint=grade&status=open")) == []

        ended = await http.post("/requests/cancel", data=one)
        assert "has ended: succeeded" in ended.text
        again = await client.request(Photo("q"), endpoint="grade")
        canceled = await http.post("/requests/cancel", data={"id": again.id})
        assert f"request {again.id}: canceled" in canceled.text
        assert (await again.refresh()).status == "canceled"
        discarded = await http.post("/requests/discard", data=one)
        assert "is forgotten" in discarded.text

        async def gone() -> bool:
            return waits.id not in ids(await page(served))

        await until(gone, "it is forgotten")
        unknown = await http.post("/requests/cancel", data={"id": "grade-" + "0" * 32})
        assert unknown.status_code == 400


async def test_jobs(nats: Settings, tmp_path: Path) -> None:
    mark = tmp_path / "bad"
    mark.touch()
    rows = [{"name": f"p{n}", "bad": str(mark) if n % 10 == 0 else ""} for n in range(40)]
    async with serving(nats) as served:
        http = served.http
        job = await served.harness.client.submit("grade", rows)
        one = {"id": job.id}
        async with served.harness.worker():
            await job.wait()
            assert job.progress.failed == 4

            async def seen() -> bool:
                text = await page(served)
                return ids(text)[:1] == [job.id] and "40 of 40 rows, 4 failed" in text

            await until(seen, "the job")
            told = (await http.get("/requests/job", params=one)).text
            assert "The first rows with errors" in told
            assert "Try again what failed" in told
            results = await http.get("/requests/results", params=one)
            assert len(results.text.splitlines()) == 40
            assert results.headers["content-disposition"].startswith("attachment")
            errors = await http.get("/requests/results", params={**one, "only": "errors"})
            assert len(errors.text.splitlines()) == 4
            mark.unlink()
            retried = await http.post("/requests/retry", data=one)
            assert "open again" in retried.text
            await job.wait()
            assert job.progress.failed == 0
            twice = await http.post("/requests/retry", data=one)
            assert twice.status_code == 503
            assert "nothing in it can be tried again" in twice.text
        open_ = await served.harness.client.submit("grade", rows)
        stopped = await http.post("/requests/cancel", data={"id": open_.id})
        assert "canceled" in stopped.text or "stops" in stopped.text
        assert "is forgotten" in (await http.post("/requests/discard", data=one)).text
        assert (await http.get("/requests/job", params=one)).status_code == 503
