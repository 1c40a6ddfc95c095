"""The ordinary life of a job: deployments, slow handlers, stores that are full, two who submit."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mqinfer import App, Blob, Message
from mqinfer.adapters.blobstores.folder import FolderStore
from mqinfer.errors import BlobError, RequestConflict
from mqinfer.jobs import driving, state
from mqinfer.joins import tracking
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from tests.jobs.test_ends import Bench, Grade, Photo, photos
from tests.jobs.test_outages import state_of
from tests.jobs.test_output import file, lines
from tests.support import jobs_app
from tests.support.jobs_app import truth
from tests.support.s3 import s3_config


async def test_a_rolling_restart(nats: Settings) -> None:
    rows = 1_500
    async with Harness(jobs_app.app, nats) as harness:
        job = await harness.client.submit("grade", [jobs_app.Photo(n) for n in range(rows)])
        ended = asyncio.create_task(job.wait())

        async def roll() -> int:
            rounds = 0
            while not ended.done():
                async with harness.worker():
                    await asyncio.wait({ended}, timeout=0.3)
                rounds += 1
            return rounds

        rounds = await asyncio.gather(roll(), roll())  # one joins while another goes
        assert sum(rounds) > 2
        assert (await ended).done == rows
        found = [row async for row in job.results()]
        for n, row in enumerate(found):
            status, answers, _ = truth(n)
            assert (row.row, row.status) == (n + 1, status)
            assert row.answers == tuple(jobs_app.Grade(**one) for one in answers)


async def test_a_handler_that_takes_longer_than_any_patience(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is done twice or lost, and what is done is told while the rest is at work."""
    monkeypatch.setattr(state, "LOST", 0.3)
    app, handled, told = App("plants"), Counter[int](), asyncio.Event()

    @app.stage(ack_wait=3.0)  # long enough to be renewed in time on a busy machine
    async def grade(photo: Photo) -> Grade:
        handled[photo.n] += 1
        if photo.n >= 10:  # those of the first chunk are what is told of
            await asyncio.sleep(7.0)
            await told.wait()
        return Grade(photo.n)

    app.endpoint("grade", Photo, answers=Grade)
    async with Harness(app, nats) as harness, harness.worker(), harness.worker():
        job = await harness.client.submit("grade", photos(40), chunk=10)
        async for progress in job:
            if progress.done == 10:
                told.set()
        assert job.progress.status == "completed"
        assert handled == Counter(range(40))
        assert [row.answers async for row in job.results()] == [(Grade(n),) for n in range(40)]


async def test_a_store_that_is_full_for_a_while(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (tracking, driving):
        monkeypatch.setattr(module, "AGAIN", 0.1)
    full, refused = True, 0
    put = FolderStore.put

    async def put_one(self: FolderStore, path: str, data: bytes) -> None:
        nonlocal refused
        if full and "/parts/" in path:
            refused += 1
            raise BlobError("no space left")
        await put(self, path, data)

    monkeypatch.setattr(FolderStore, "put", put_one)
    bench = Bench()
    async with Harness(bench.app, nats) as harness, harness.worker():
        job = await harness.client.submit("grade", photos(100))
        await until(lambda: refused > 20, "parts that find no room")
        assert (await job.status()).done == 0
        full = False
        assert (await job.wait()).status == "completed"
        assert bench.handled == Counter(range(100))  # nothing was done twice for it
        assert await harness.dead() == []


async def test_a_store_that_cannot_be_written_refuses_the_job(
    nats: Settings, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    bench = Bench()
    async with Harness(bench.app, replace(nats, blobs=str(tmp_path / "file"))) as harness:
        with pytest.raises(BlobError, match="a file is in its place"):
            await harness.client.submit("grade", photos(3))
        assert await harness.client.jobs() == []


async def test_one_key_submitted_twice_while_the_first_still_reads(nats: Settings) -> None:
    bench, go_on = Bench(), asyncio.Event()

    async def slowly() -> AsyncIterator[Photo]:
        for photo in photos(300):
            if photo.n == 290:
                await go_on.wait()
            yield photo

    async with Harness(bench.app, nats) as harness:
        client = harness.client
        first = asyncio.create_task(client.submit("grade", slowly(), key="k"))
        second = await client.submit("grade", photos(300), key="k")
        assert not second.replayed
        assert not first.done()
        go_on.set()
        again = await first
        assert (again.id, again.replayed) == (second.id, True)
        with pytest.raises(RequestConflict):
            await client.submit("grade", photos(299), key="k")
        async with harness.worker():
            assert (await again.wait()).status == "completed"
        assert bench.handled == Counter(range(300))


async def test_given_up_while_it_is_read_there_is_no_job(nats: Settings, tmp_path: Path) -> None:
    bench, stored = Bench(), asyncio.Event()
    path = tmp_path / "rows.csv"
    path.write_text("n\n" + "\n".join(map(str, range(200_000))) + "\n")

    async def given() -> AsyncIterator[Photo]:
        for photo in photos(1_000_000):
            if photo.n == 1_000:
                stored.set()
            yield photo

    async with Harness(bench.app, nats) as harness:
        for source in (given(), path):
            submitting = asyncio.create_task(harness.client.submit("grade", source))
            await (stored.wait() if source is not path else asyncio.sleep(0.05))
            submitting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await submitting
        assert await harness.client.jobs() == []
        job = await harness.client.submit("grade", photos(3))
        async with harness.worker():
            assert (await job.wait()).status == "completed"


@pytest.mark.parametrize("text", ["", "n,custom_id\r\n"])
async def test_a_file_without_rows_is_a_job_without_rows(
    nats: Settings, tmp_path: Path, text: str
) -> None:
    bench, path = Bench(), tmp_path / "rows.csv"
    path.write_text(text)
    async with Harness(bench.app, nats) as harness, harness.worker():
        job = await harness.client.submit("grade", path)
        found = await job.wait()
        assert (found.status, found.rows) == ("completed", 0)
        assert await file(harness, job) == await file(harness, job, "errors") == b""
        assert [row async for row in job.results()] == []


async def test_the_same_custom_id_twice_is_two_rows(nats: Settings) -> None:
    bench = Bench()
    async with Harness(bench.app, nats) as harness, harness.worker():
        rows = [{"n": n, "custom_id": "same"} for n in range(4)]
        job = await harness.client.submit("grade", rows)
        await job.wait()
        told = lines(await file(harness, job))
        assert [(one["row"], one["custom_id"]) for one in told] == [
            (row, "same") for row in range(1, 5)
        ]


async def test_a_version_that_knows_more_and_one_that_knows_less() -> None:
    now = state_of(written=True)
    newer = msgspec.json.encode({**msgspec.to_builtins(now), "of_tomorrow": [1]})
    assert state.decode(newer) == now
    older = msgspec.to_builtins(now)
    del older["written"]
    assert state.decode(msgspec.json.encode(older)) == state_of()


class Picture(Message):
    image: Blob
    name: str


class Size(Message):
    name: str
    size: int


async def test_pictures_of_s3_and_all_files_there(
    nats: Settings, s3_endpoint: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = s3_config(s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", config["access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", config["secret_access_key"])
    monkeypatch.setenv("AWS_REGION", config["region"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    app = App("plants")

    @app.stage
    async def measure(picture: Picture) -> Size:
        return Size(picture.name, len(await picture.image.bytes()))

    app.endpoint("size", Picture, answers=Size)
    settings = replace(nats, blobs=f"s3://{bucket}/pre")
    async with Harness(app, settings) as harness, harness.worker():
        names = [f"{n:02}.png" for n in range(30)]
        for n, name in enumerate(names):
            await harness.client.blobs.put(f"in/may/{name}", bytes(n))
        await harness.client.blobs.put("in/may/notes.txt", b"")
        job = await harness.client.submit("size", "blob:in/may/")
        assert (await job.wait()).status == "completed"
        told: list[dict[str, Any]] = lines(await file(harness, job))
        assert [one["custom_id"] for one in told] == names
        assert [one["answers"][0]["data"]["size"] for one in told] == list(range(30))
        assert b"".join([data async for data in job.text()]) == await file(harness, job)
