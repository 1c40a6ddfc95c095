"""Jobs by HTTP: submitted at once, read by a worker, followed, ended, and nobody else's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import httpx_sse
import pytest
import pytest_asyncio

from mqinfer.gateway.load import Load
from mqinfer.gateway.tenants import new_key
from mqinfer.settings import Settings
from mqinfer.testing import until
from tests.support.gateway import JSON, Served, serving
from tests.support.gateway_app import app

SECRET = "a secret that all gateways share"
ROWS = [{"name": f"p{n}", "leaves": n % 3, "custom_id": f"row {n}"} for n in range(40)]
ENDS = ("completed", "partial", "failed", "canceled", "expired")


@pytest_asyncio.fixture
async def served(nats: Settings) -> AsyncIterator[Served]:
    async with serving(nats, max_body=100_000) as found:
        yield found
        assert (await found.http.get("/readyz")).status_code == 200


async def submit(http: httpx.AsyncClient, key: str = "", **fields: Any) -> httpx.Response:
    headers = {"idempotency-key": key} if key else {}
    return await http.post("/v1/jobs", json={"endpoint": "grade", **fields}, headers=headers)


async def upload(http: httpx.AsyncClient, name: str, data: bytes) -> str:
    stored = await http.post("/v1/files", files={"rows": (name, data)})
    assert stored.status_code == 201, stored.text
    assert stored.json()["files"]["rows"]["size"] == len(data)
    path: str = stored.json()["files"]["rows"]["path"]
    return path


async def ended(http: httpx.AsyncClient, where: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        told = (await http.get(where, headers={"prefer": "wait=30"})).json()
        return told if told["status"] in ENDS else None

    return await until(look, "the end of a job")


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.headers["content-type"] == "application/jsonl"
    return [json.loads(line) for line in answer.text.splitlines()]


def problem(answer: httpx.Response, status: int, kind: str) -> list[str]:
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert told["type"] == f"urn:mqinfer:problem:{kind}"
    return [one["pointer"] for one in told.get("errors", ())]


async def test_rows_in_the_body(served: Served) -> None:
    """The id comes before anybody reads a row; a gateway that is gone by then is not missed."""
    http = served.http
    accepted = await submit(http, rows=ROWS)
    assert accepted.status_code == 202
    told = accepted.json()
    assert accepted.headers["location"] == told["links"]["self"]
    assert told["status"] == "planning"
    assert "rows" not in told
    shown = await http.get(told["links"]["self"])
    assert shown.headers["retry-after"] == "1"
    known = {"if-none-match": shown.headers["etag"]}
    assert (await http.get(told["links"]["self"], headers=known)).status_code == 304
    assert lines(await http.get(told["links"]["results"])) == []
    # Who knows how it stands is told of the first change.
    poll = asyncio.create_task(
        http.get(told["links"]["self"], headers={**known, "prefer": "wait=60"})
    )
    async with served.harness.worker():
        changed = await poll
        assert changed.status_code == 200
        assert changed.json()["status"] != "planning"
        end = await ended(http, told["links"]["self"])
        assert (end["status"], end["rows"]) == ("completed", 40)
        assert end["progress"] == {"done": 40, "succeeded": 40, "partial": 0, "failed": 0}
        whole = await http.get(told["links"]["results"])
        assert whole.status_code == 200
        rows = lines(whole)
        assert [one["row"] for one in rows] == list(range(1, 41))
        assert [one["custom_id"] for one in rows] == [one["custom_id"] for one in ROWS]
        for n, one in enumerate(rows):
            answers = [
                {"type": "grade", "data": {"photo": f"p{n}", "number": i}} for i in range(n % 3)
            ]
            assert one["answers"] == answers
        rest = lines(await http.get(told["links"]["results"], params={"after": 35}))
        assert rest == rows[35:]
        assert lines(await http.get(told["links"]["errors"])) == []
        await in_ranges(http, told["links"]["results"], whole.content)
        assert (
            problem(
                await http.get(told["links"]["errors"], headers={"range": "bytes=1-"}), 416, "range"
            )
            == []
        )
        empty = await http.get(told["links"]["errors"], headers={"range": "bytes=0-"})
        assert (empty.status_code, empty.content) == (200, b"")
        listed = (await http.get("/v1/jobs")).json()["jobs"]
        assert [one["id"] for one in listed] == [told["id"]]


async def in_ranges(http: httpx.AsyncClient, where: str, whole: bytes) -> None:
    """A file of results is told by parts; whoever has one of another file gets all of this one."""
    size = len(whole)
    head = await http.head(where)
    assert (head.status_code, int(head.headers["content-length"]), head.content) == (200, size, b"")
    assert head.headers["accept-ranges"] == "bytes"
    etag = head.headers["etag"]
    for text, start, stop in (
        ("0-0", 0, 1),
        ("10-99", 10, 100),
        ("100-", 100, size),
        ("-7", size - 7, size),
        (f"{size - 1}-{size + 100}", size - 1, size),
        (f"-{size + 100}", 0, size),
    ):
        for more in ({}, {"if-range": etag}):
            found = await http.get(where, headers={"range": f"bytes={text}", **more})
            assert (found.status_code, found.content) == (206, whole[start:stop]), text
            assert found.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
            assert int(found.headers["content-length"]) == stop - start
            assert found.headers["etag"] == etag
    for headers in (
        {"range": "bytes=10-99", "if-range": '"another"'},
        {"range": "bytes=10-99", "if-range": f"W/{etag}"},
        {"range": "bytes=0-1,5-6"},
        {"range": "bytes=9-1"},
        {"range": "rows=0-1"},
    ):
        found = await http.get(where, headers=headers)
        assert (found.status_code, found.content) == (200, whole), headers
    for text in (f"{size}-", "-0"):
        found = await http.get(where, headers={"range": f"bytes={text}"})
        assert problem(found, 416, "range") == []
        assert found.headers["content-range"] == f"bytes */{size}"
    assert (await http.get(where, headers={"if-none-match": etag})).status_code == 304
    behind = await http.get(where, params={"after": 35}, headers={"range": "bytes=0-1"})
    assert (behind.status_code, "etag" in behind.headers) == (200, False)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
async def test_files_of_rows(served: Served, kind: str, tmp_path: Path) -> None:
    if kind == "csv":
        data = b"name,leaves\r\na,1\r\n,2\r\nbad,1\r\nd,x\r\n"
    elif kind == "jsonl":
        first = b'{"name": "a", "leaves": 1}\n{"leaves": 2}\n{"name": "bad"}\n'
        data = first + b'{"name": "d", "leaves": "x"}'
    else:
        import pyarrow as arrow
        from pyarrow import parquet

        columns = {"name": ["a", None, "bad", "d"], "leaves": [1, 2, 1, -1]}
        parquet.write_table(arrow.table(columns), tmp_path / "x")
        data = (tmp_path / "x").read_bytes()
    path = await upload(served.http, f"Rows.{kind.upper()}", data)
    assert path.endswith(f".{kind}")
    assert path == await upload(served.http, f"again.{kind}", data)
    async with served.harness.worker():
        links = (await submit(served.http, file=path)).json()["links"]
        end = await ended(served.http, links["self"])
        assert (end["status"], end["rows"]) == ("partial", 4)
        rows = lines(await served.http.get(links["results"]))
        assert [one["status"] for one in rows] == ["succeeded", "failed", "failed", "failed"]
        errors = lines(await served.http.get(links["errors"]))
        assert errors == rows[1:]
        assert [one["errors"][0]["kind"] for one in errors] == ["invalid", "rejected", "invalid"]
        # What failed otherwise than by being no message is tried again.
        again = await served.http.post(links["retry-failed"])
        assert (again.status_code, again.json()["round"]) == (202, 1)
        assert (await ended(served.http, links["self"]))["round"] == 1
        assert lines(await served.http.get(links["results"])) == rows


async def test_a_file_without_an_ending_says_what_it_is(served: Served) -> None:
    path = await upload(served.http, "rows", b"name;leaves\na;1\n")
    assert problem(await submit(served.http, file=path), 422, "validation") == ["/format"]
    async with served.harness.worker():
        links = (await submit(served.http, file=path, format="csv")).json()["links"]
        assert (await ended(served.http, links["self"]))["status"] == "completed"
        # What nobody can read as a whole has failed, and says why, but not where it lies here.
        links = (await submit(served.http, file=path, format="parquet")).json()["links"]
        end = await ended(served.http, links["self"])
        assert end["status"] == "failed"
        assert path in end["reason"]
        assert "/tmp" not in end["reason"]
        assert problem(await served.http.post(links["retry-failed"]), 409, "nothing") == []


async def test_keys(served: Served) -> None:
    http = served.http
    first = await submit(http, "k", rows=ROWS)
    again = await submit(http, "k", rows=ROWS)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (202, "true")
    assert again.json()["id"] == first.json()["id"]
    problem(await submit(http, "k", rows=ROWS[1:]), 422, "key-reused")
    problem(await submit(http, "k", rows=ROWS, max_failures=1), 422, "key-reused")
    # Of what is forgotten the key is free at once.
    where = first.json()["links"]["self"]
    assert (await http.delete(where)).status_code == 204
    problem(await http.get(where), 404, "unknown")
    problem(await http.delete(where), 404, "unknown")
    other = await submit(http, "k", rows=ROWS[1:])
    assert other.status_code == 202
    assert "idempotent-replayed" not in other.headers
    async with served.harness.worker():
        assert (await ended(http, where))["rows"] == 39


async def test_what_is_wrong_with_a_body(served: Served) -> None:
    http = served.http
    assert problem(await submit(http), 422, "validation") == [""]
    assert problem(await submit(http, rows=[], file="uploads/a"), 422, "validation") == [""]
    wrong = {
        "endpoint": "none", "rows": [1, {}], "max_failures": -1, "deadline": "soon", "keep": 0,
        "chunk": 0, "more": 1,
    }  # fmt: skip
    found = problem(await http.post("/v1/jobs", json=wrong), 422, "validation")
    assert set(found) == {
        "/endpoint", "/rows/0", "/max_failures", "/deadline", "/keep", "/chunk", "/more"
    }  # fmt: skip
    for path in (
        "../secret", "uploads/../../x", "/etc/passwd", "other/a.csv", "uploads/none.csv", "jobs/",
        "uploads", "uploads//", "a\x00b",
    ):  # fmt: skip
        assert problem(await submit(http, file=path), 422, "validation") == ["/file"]
    problem(await http.post("/v1/jobs", content=b"{", headers=JSON), 400, "malformed")
    problem(await http.post("/v1/jobs", content=b"{}"), 415, "content-type")
    problem(await submit(http, rows=[{"name": "x" * 200_000}]), 413, "too-large")
    for path in ("/v1/jobs?limit=0", "/v1/jobs?limit=x", "/v1/jobs?limit=99999"):
        problem(await http.get(path), 400, "malformed")
    for identity in ("x", "job-grade-" + "0" * 32, "job-grade-*", "..%2f.."):
        for tail in ("", "/results", "/errors", "/events"):
            problem(await http.get(f"/v1/jobs/{identity}{tail}"), 404, "unknown")
        for tail in ("/cancel", "/retry-failed"):
            problem(await http.post(f"/v1/jobs/{identity}{tail}"), 404, "unknown")
        problem(await http.delete(f"/v1/jobs/{identity}"), 404, "unknown")


async def follow(http: httpx.AsyncClient, where: str, last: str = "") -> list[Any]:
    headers = {"last-event-id": last} if last else {}
    async with httpx_sse.aconnect_sse(http, "GET", where, headers=headers) as source:
        return [one async for one in source.aiter_sse() if one.event != "message"]


async def test_events(served: Served) -> None:
    http = served.http
    links = (await submit(http, rows=ROWS)).json()["links"]
    following = asyncio.create_task(follow(http, links["events"]))
    await until(lambda: served.gateway.counting.streams == 1, "a stream that is open")
    async with served.harness.worker():
        seen = await following
    assert seen[-1].event == "end"
    assert seen[-1].json()["progress"]["done"] == 40
    assert {one.event for one in seen[:-1]} == {"progress"}
    done = [one.json()["progress"]["done"] for one in seen]
    assert done == sorted(done)
    assert len({one.id for one in seen}) == len(seen)
    # Who comes again behind an event is told what is new alone, and at last nothing.
    again = await follow(http, links["events"], seen[0].id)
    assert [one.event for one in again] == ["end"]
    over = await http.get(links["events"], headers={"last-event-id": seen[-1].id})
    assert over.status_code == 204
    problem(await http.get(links["events"], headers={"last-event-id": "x"}), 400, "malformed")


async def test_a_job_that_is_stopped(served: Served, tmp_path: Path) -> None:
    http, hold = served.http, tmp_path / "hold"
    hold.touch()
    # Before anybody has read its rows.
    links = (await submit(http, rows=ROWS)).json()["links"]
    stopped = await http.post(links["cancel"])
    assert (stopped.status_code, stopped.json()["status"]) == (200, "canceled")
    problem(await http.post(links["cancel"]), 409, "ended")
    async with served.harness.worker():
        held = [{"name": f"p{n}", "leaves": 2, "hold": str(hold)} for n in range(5)]
        links = (await submit(http, rows=held)).json()["links"]

        async def runs() -> bool:
            return (await http.get(links["self"])).json()["status"] == "running"

        await until(runs, "a job that runs")
        problem(await http.post(links["retry-failed"]), 409, "open")
        assert (await http.post(links["cancel"])).status_code == 200
        end = await ended(http, links["self"])
        assert end["status"] == "canceled"
        # Forgotten, with all that lay in the blob store.
        assert (await http.delete(links["self"])).status_code == 204
        folder = Path(str(served.gateway.settings.blobs)) / "jobs" / end["id"]
        await until(lambda: not any(one.is_file() for one in folder.rglob("*")), "no blob")
        hold.unlink()


async def test_another_tenants_jobs_and_files_do_not_exist(nats: Settings, tmp_path: Path) -> None:
    (one, of_one), (two, of_two) = new_key(), new_key()
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[acme]\nkeys = ["{of_one}"]\n[zeta]\nkeys = ["{of_two}"]\n')
    settings = replace(nats, request_secret=SECRET)
    async with serving(settings, key=one, keys=keys) as served, served.harness.worker():
        http = served.http
        bearer = {"authorization": f"Bearer {two}"}
        async with httpx.AsyncClient(
            base_url=http.base_url, headers=bearer, trust_env=False, timeout=60
        ) as other:
            path = await upload(http, "a.csv", b"name,picture\na,\n")
            assert path.startswith("tenants/acme/")
            assert problem(await submit(other, file=path), 422, "validation") == ["/file"]
            # Nor does a row reach what is another's.
            told = (await submit(other, "k", rows=[{"name": "a", "picture": path}])).json()
            await ended(other, told["links"]["self"])
            (line,) = lines(await other.get(told["links"]["results"]))
            assert line["errors"][0]["kind"] == "invalid"
            assert "no path of yours" in line["errors"][0]["reason"]
            mine = (await submit(http, "k", rows=[{"name": "a", "picture": path}])).json()
            assert mine["id"] != told["id"]
            await ended(http, mine["links"]["self"])
            (line,) = lines(await http.get(mine["links"]["results"]))
            assert line["status"] == "succeeded"
            for tail in ("", "/results", "/errors", "/events"):
                where = mine["links"]["self"] + tail
                problem(await other.get(where), 404, "unknown")
            for tail in ("/cancel", "/retry-failed"):
                problem(await other.post(mine["links"]["self"] + tail), 404, "unknown")
            problem(await other.delete(mine["links"]["self"]), 404, "unknown")
            listed = (await other.get("/v1/jobs")).json()["jobs"]
            assert [one["id"] for one in listed] == [told["id"]]
            # The link to the events opens them without a key, and nothing else.
            async with httpx.AsyncClient(base_url=http.base_url, trust_env=False) as bare:
                assert (await follow(bare, mine["links"]["events"]))[-1].event == "end"
                token = mine["links"]["events"].partition("?")[2]
                for tail in ("", "/results"):
                    problem(await bare.get(f"{mine['links']['self']}{tail}?{token}"), 401, "key")


async def test_what_comes_of_jobs_is_no_load_of_live_requests(served: Served) -> None:
    broker = served.gateway.broker
    assert broker is not None
    watched = Load(app, broker, 10)._watched["grade"].specs
    assert watched
    assert not [spec.name for spec in watched if spec.name.endswith("=bulk")]
