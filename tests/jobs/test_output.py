"""What came of a job, as a file each of results and errors, and as bytes of both at any time."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from mqinfer.adapters.blobstores.cloud import PART, CloudStore
from mqinfer.adapters.blobstores.folder import FolderStore
from mqinfer.adapters.blobstores.memory import MemoryStore
from mqinfer.blob import BlobStore
from mqinfer.errors import BlobError, BlobNotFound
from mqinfer.jobs import listing, output, part, places, results, state
from mqinfer.jobs.chunk import Failure
from mqinfer.jobs.job import Job
from mqinfer.jobs.part import Line
from mqinfer.jobs.state import State
from mqinfer.requests.state import Answer, Body
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from tests.jobs.test_ends import Bench, photos
from tests.jobs.test_outages import state_of
from tests.support.s3 import s3_config


def line_of(row: int, text: str = "") -> Line:
    """Every third has died, and has an answer all the same."""
    body = Body.of(msgspec.json.encode({"n": row, "text": text}), "application/json")
    errors = (Failure("rejected", "too dark"),) if row % 3 == 0 else ()
    answers = (Answer(f"id{row}", "grade", body),)
    return Line(row, "partial" if errors else "succeeded", f"c{row}", answers, errors)


async def stored(store: BlobStore, chunks: int, rows: int, text: str = "") -> State:
    """A job whose parts are in a store."""
    found = replace(state_of(), rows=chunks * rows, chunks=chunks, parts=bytes([1] * chunks))
    for number in range(chunks):
        lines = [line_of(number * rows + row + 1, text) for row in range(rows)]
        await store.put(places.part(found.folder, number, 0), part.encode(lines))
    return found


def told(row: int, text: str = "") -> dict[str, Any]:
    return {
        "row": row,
        "custom_id": f"c{row}",
        "status": "succeeded" if row % 3 else "partial",
        "answers": [{"type": "grade", "data": {"n": row, "text": text}}],
        "errors": [] if row % 3 else [{"kind": "rejected", "reason": "too dark"}],
    }


async def text(store: BlobStore, found: State, *, errors: bool = False) -> bytes:
    return b"".join([data async for data in results.text(store, found, errors=errors)])


def lines(data: bytes) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in data.splitlines()]


async def test_files_say_what_the_parts_say() -> None:
    store = MemoryStore()
    found = await stored(store, 5, 4)
    before = [await text(store, found, errors=errors) for errors in (False, True)]
    assert lines(before[0]) == [told(row) for row in range(1, 21)]
    assert lines(before[1]) == [told(row) for row in range(3, 21, 3)]
    assert await output.write(store, found) == (len(before[0]), len(before[1]))
    for start in (1, 500, len(before[0])):  # the same of the parts as of the file
        for state_now in (found, replace(found, written=True)):
            rest = results.text(store, state_now, start=start)
            assert b"".join([some async for some in rest]) == before[0][start:]
    assert await store.get("jobs/x/results.jsonl") == before[0]
    assert await store.get("jobs/x/errors.jsonl") == before[1]
    ended = replace(found, written=True)
    await store.put(places.part(found.folder, 0, 0), b"")  # the files alone are read then
    assert [await text(store, ended, errors=errors) for errors in (False, True)] == before


async def test_whoever_has_read_some_goes_on_behind_it() -> None:
    store = MemoryStore()
    found = await stored(store, 5, 4)
    manifest = {"first": [1, 5, 9, 13, 17], "rows": 20}
    await store.put(places.manifest(found.folder), msgspec.json.encode(manifest))
    await output.write(store, found)
    for state_now in (found, replace(found, written=True)):
        for after in (1, 4, 5, 18, 20, 100):
            for errors in (False, True):
                rest = results.text(store, state_now, errors=errors, after=after)
                data = b"".join([some async for some in rest])
                assert lines(data) == [
                    told(row) for row in range(after + 1, 21) if row % 3 == 0 or not errors
                ]
    await store.put(places.part(found.folder, 2, 0), b"no part")  # before it none is read
    rest = results.text(store, found, after=12)
    assert len(lines(b"".join([some async for some in rest]))) == 8


async def test_without_its_file_the_parts_are_read() -> None:
    store = MemoryStore()
    found = await stored(store, 2, 4)
    assert lines(await text(store, replace(found, written=True))) == [told(n) for n in range(1, 9)]


async def test_a_round_has_files_of_its_own() -> None:
    found = replace(state_of(), round=2)
    assert places.results(found) == "jobs/x/results.2.jsonl"
    assert places.errors(found) == "jobs/x/errors.2.jsonl"


def test_an_answer_that_is_no_json_of_one_line_is_told_as_json() -> None:
    packed = Body.of(msgspec.msgpack.encode({"n": 1}), "application/x-msgpack")
    spread = Body.of(b'{\n  "n": 1\n}', "application/json")
    made = [Line(1, "succeeded", answers=(Answer("i", "t", body),)) for body in (packed, spread)]
    data = listing.encode(made)
    assert [one["answers"][0]["data"] for one in lines(data)] == [{"n": 1}] * 2


async def test_files_are_written_in_flat_memory(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, durable=False)
    chunk = 2_000_000
    found = await stored(store, 30, 20, "x" * (chunk // 20))
    tracemalloc.start()
    try:
        await output.write(store, found)
        size = sum(
            [
                len(data)
                async for data in results.text(store, replace(found, written=True), errors=False)
            ]
        )
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 30 * chunk
    assert most < 10 * chunk  # a part as it lies there, as lines, and as they are told


async def test_files_in_s3_are_uploaded_in_parts(s3_endpoint: str, bucket: str) -> None:
    store = CloudStore(f"s3://{bucket}/pre", config=s3_config(s3_endpoint))
    found = await stored(store, 6, 4, "x" * 1_000_000)
    await output.write(store, found)
    data = await store.get("jobs/x/results.jsonl")
    assert len(data) > 2 * PART
    assert lines(data) == [told(row, "x" * 1_000_000) for row in range(1, 25)]
    assert len(await store.get("jobs/x/errors.jsonl")) == pytest.approx(len(data) / 3, rel=0.01)
    assert await text(store, replace(found, written=True)) == data


# --- a whole job ----------------------------------------------------------------------------------


async def file(harness: Harness, job: Job, which: str = "results") -> bytes:
    return await harness.client.blobs.get(job.facts()["files"][which])


async def succeeded(harness: Harness, job: Job) -> bool:
    """Whether it is said that all is there."""
    folder = job.facts()["files"]["results"].rpartition("/")[0]
    return await harness.client.blobs.exists(f"{folder}/_SUCCESS")


async def test_the_files_of_each_round(nats: Settings) -> None:
    bench = Bench()
    bench.bad = {3, 40}
    async with Harness(bench.app, nats) as harness, harness.worker():
        job = await harness.client.submit("grade", photos(60))
        assert "files" not in job.facts()
        await job.wait()
        first, errors = await file(harness, job), await file(harness, job, "errors")
        assert [one["row"] for one in lines(first)] == list(range(1, 61))
        assert [one["row"] for one in lines(errors)] == [4, 41]
        assert [one async for one in job.lines()] == lines(first)
        assert await succeeded(harness, job)
        before = job.facts()["files"]["results"]
        bench.bad = {40}
        await job.retry_failed()
        assert "files" not in job.facts()
        await job.wait()
        assert [one["row"] for one in lines(await file(harness, job, "errors"))] == [41]
        second = lines(await file(harness, job))
        assert [one["row"] for one in second if one["answers"]] == [
            row for row in range(1, 61) if row != 41
        ]
        # Whoever reads the file of the round before goes on reading that.
        assert await harness.client.blobs.get(before) == first


async def test_a_job_that_was_stopped_has_files_too_and_no_success(nats: Settings) -> None:
    bench = Bench()
    bench.hangs = set(range(200, 600))
    async with Harness(bench.app, nats) as harness, harness.worker():
        job = await harness.client.submit("grade", photos(600))

        async def some_hang() -> bool:
            return bench.handled.keys() >= {200} and (await job.status()).done >= 128

        await until(some_hang, "work that hangs")
        partial = b"".join([data async for data in job.text()])  # while it is open
        assert len(lines(partial)) == job.progress.done
        await job.cancel()
        assert (await job.wait()).status == "canceled"
        told_all = lines(await file(harness, job))
        assert len(told_all) == job.progress.done
        # Those that were done by then, which need not be the first ones: chunks end as they do.
        then = {one["row"] for one in lines(partial)}
        assert lines(partial) == [one for one in told_all if one["row"] in then]
        assert not await succeeded(harness, job)


async def test_a_store_that_refuses_does_not_hold_up_a_stop(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = True
    put = FolderStore.put_pieces

    async def put_pieces(self: FolderStore, path: str, pieces: Any) -> None:
        if full:
            raise BlobError("no space left")
        await put(self, path, pieces)

    monkeypatch.setattr(FolderStore, "put_pieces", put_pieces)
    bench = Bench()
    bench.hangs = {150}
    async with Harness(bench.app, nats) as harness, harness.worker():
        stopped = await harness.client.submit("grade", photos(200))
        await until(lambda: bench.handled[150], "work that hangs")
        await stopped.cancel()
        assert (await stopped.wait()).status == "canceled"
        assert "files" not in stopped.facts()
        assert len([one async for one in stopped.lines()]) == stopped.progress.done
        bench.hangs = set()
        # One whose rows are all done waits for room.
        job = await harness.client.submit("grade", photos(20))

        async def all_done() -> bool:
            return (await job.status()).done == 20

        await until(all_done, "all rows")
        assert job.progress.status == "open"
        full = False
        assert (await job.wait()).status == "completed"
        assert len(lines(await file(harness, job))) == 20


async def test_a_job_of_which_nothing_is_left_is_complete_however_late_its_files_are() -> None:
    now = 5000.0
    job = replace(state_of(), rows=1, chunks=1, parts=b"\x01", again=b"\x00", cursor=1)
    job = replace(job, counts=state.Counts(succeeded=1))
    assert state.overdue(job, now)
    assert state.given_up(job, now).status == "completed"
    assert not state.given_up(job, now).written
    left = replace(job, parts=b"\x00", cursor=0, counts=state.Counts())
    assert state.given_up(left, now).status == "expired"


async def test_a_part_that_is_gone_is_told() -> None:
    store = MemoryStore()
    found = await stored(store, 2, 4)
    with pytest.raises(BlobNotFound, match="parts/00002"):
        await text(store, replace(found, chunks=3, parts=bytes([1] * 3)))
