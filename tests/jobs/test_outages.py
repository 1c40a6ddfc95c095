"""Whoever waits for a job, or reads what came of it, waits through an outage of NATS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mqinfer.adapters.blobstores.memory import MemoryStore
from mqinfer.errors import JobUnknown, Unavailable
from mqinfer.jobs import jobs, places, results
from mqinfer.jobs.job import Job, JobRow, JobStatus
from mqinfer.jobs.state import State
from mqinfer.settings import Settings
from mqinfer.stack import NatsServer
from mqinfer.testing import Harness
from tests.support.jobs_app import Photo, app, truth

ROWS = 400


async def seen(job: Job) -> list[JobStatus]:
    return [progress async for progress in job]


async def read(job: Job) -> list[JobRow]:
    return [row async for row in job.results()]


async def test_a_kill_of_the_server_is_waited_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "HEARTBEAT", 0.05)  # so that each looks while nothing answers
    server = NatsServer(tmp_path / "nats", log=tmp_path / "nats.log")
    await server.start()
    try:
        await server.wait_ready(60)
        settings = Settings.load({}, nats_url=server.url, blobs=str(tmp_path / "blobs"), grace=5.0)
        async with Harness(app, settings) as harness:
            job = await harness.client.submit("grade", [Photo(n) for n in range(ROWS)])
            others = [await harness.client.job(job.id) for _ in range(3)]
            waiting = asyncio.create_task(job.wait())
            following = asyncio.create_task(seen(others[0]))
            server.kill()
            reading = asyncio.create_task(read(others[1]))
            with pytest.raises(Unavailable):
                await others[2].status()  # which says at once how it is, or that it cannot
            assert not any(task.done() for task in (waiting, following, reading))
            await server.start()
            await server.wait_ready(60)
            assert await reading == []  # of the moment when it was read
            async with harness.worker():
                assert (await waiting).status == "partial"
                told = await following
            assert (told[0].done, told[-1].done, told[-1].status) == (0, ROWS, "partial")
            done = [one.done for one in told]
            assert done == sorted(done)
            rows = await read(job)
            assert [row.status for row in rows] == [truth(n)[0] for n in range(ROWS)]
    finally:
        await server.stop()


async def test_a_job_that_is_unknown_is_so_at_once(nats: Settings) -> None:
    async with Harness(app, nats) as harness:
        bulk = await harness.client.bulk()
        for identity in ("job-grade-" + "0" * 32, "nonsense"):
            with pytest.raises(JobUnknown):
                await anext(aiter(bulk.follow(identity)))


class Shaky(MemoryStore):
    """Breaks off what it gives, each time after one piece."""

    def __init__(self) -> None:
        super().__init__()
        self.outages = 0

    async def stream(self, path: str, *, start: int = 0) -> AsyncIterator[bytes]:
        data = await self.get(path)
        for number, first in enumerate(range(start, len(data), 7)):
            if number == 1:
                self.outages += 1
                raise Unavailable("it is away")
            yield data[first : first + 7]


async def test_a_file_is_read_on_after_an_outage_of_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(results, "AGAIN", 0.0)
    store, data = Shaky(), bytes(range(100))
    state = state_of(written=True)
    await store.put(places.results(state), data)
    assert b"".join([some async for some in results.text(store, state, errors=False)]) == data
    assert store.outages > 10


async def test_an_outage_that_lasts_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "AGAIN", 0.0)
    now = 1000.0

    def clock() -> float:
        nonlocal now
        now += 10.0
        return now

    async def away() -> None:
        raise Unavailable("it is away")

    with pytest.raises(Unavailable, match="it is away"):
        await results.Patience(state_of(), clock).ask(away)
    assert now > 2000.0 + results.OUTAGE  # which is some time after the deadline


def state_of(*, written: bool = False) -> State:
    return State(
        id="job-grade-" + "0" * 32,
        endpoint="grade",
        created=1000.0,
        deadline=2000.0,
        expires=3000.0,
        keep=1000.0,
        lasts=1000.0,
        fingerprint="",
        folder="jobs/x",
        rows=0,
        chunks=0,
        written=written,
    )
