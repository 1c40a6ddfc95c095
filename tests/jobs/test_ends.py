"""How jobs end otherwise: canceled, expired, stopped for failures; and what failed, tried again."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from mqinfer import App, Message, Reject
from mqinfer.completion import record, roots
from mqinfer.errors import ConfigurationError, JobUnknown, MqinferError, RequestConflict
from mqinfer.jobs import state
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until


class Photo(Message):
    n: int


class Grade(Message):
    n: int


class Bench:
    """An app whose stage counts what it handles, rejects what it is told to, or hangs."""

    def __init__(self) -> None:
        self.app = App("plants")
        self.handled: Counter[int] = Counter()
        self.bad: set[int] = set()
        self.hangs: set[int] = set()
        self.cancelled = 0

        @self.app.stage(attempts=1)
        async def grade(photo: Photo) -> Grade:
            self.handled[photo.n] += 1
            if photo.n in self.bad:
                raise Reject("too dark")
            if photo.n in self.hangs:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    self.cancelled += 1
                    raise
            return Grade(photo.n)

        self.app.endpoint("grade", Photo, answers=Grade)


def photos(count: int) -> list[Photo]:
    return [Photo(n) for n in range(count)]


async def test_what_failed_is_tried_again_alone(nats: Settings) -> None:
    bench = Bench()
    bench.bad = {3, 40, 41}
    rows = [*photos(60), {"n": "x"}]
    async with Harness(bench.app, nats) as harness, harness.worker():
        job = await harness.client.submit("grade", rows)
        found = await job.wait()
        assert (found.status, found.succeeded, found.failed) == ("partial", 57, 4)
        assert [row.row async for row in job.errors()] == [4, 41, 42, 61]
        bench.bad = {40}
        before = bench.handled.copy()
        assert (await job.retry_failed()).status == "open"
        found = await job.wait()
        assert bench.handled - before == Counter({3: 1, 40: 1, 41: 1})
        assert (found.status, found.succeeded, found.failed) == ("partial", 59, 2)
        told = [row async for row in job.results()]
        assert [row.row for row in told] == list(range(1, 62))
        assert [row.answers for row in told[:60] if not row.errors] == [
            (Grade(n),) for n in range(60) if n != 40
        ]
        assert [row.errors[0].kind for row in told if row.errors] == ["rejected", "invalid"]
        bench.bad = set()
        await job.retry_failed()
        assert (await job.wait()).failed == 1
        with pytest.raises(MqinferError, match="nothing in it can be tried again"):
            await job.retry_failed()


async def test_a_job_is_stopped_when_too_much_fails(nats: Settings) -> None:
    bench = Bench()
    bench.bad = set(range(1_000))
    async with Harness(bench.app, nats) as harness, harness.worker():
        job = await harness.client.submit("grade", photos(1_000), max_failures=5)
        found = await job.wait()
        assert found.status == "failed"
        assert 5 < found.done < 1_000
        told = [row async for row in job.results()]
        assert len(told) == found.done
        bench.bad = set()
        await job.retry_failed()
        found = await job.wait()
        assert (found.status, found.succeeded) == ("completed", 1_000)


async def test_a_canceled_job_keeps_what_is_done(nats: Settings) -> None:
    bench = Bench()
    bench.hangs = set(range(200, 2_000))
    async with Harness(bench.app, nats) as harness, harness.worker():
        job = await harness.client.submit("grade", photos(2_000))

        async def some_hang() -> bool:
            if not bench.handled.keys() >= {200} or (await job.status()).done < 128:
                return False
            # The last of those that do not hang may come late; a cancel would meet them.
            records = await harness.stored(roots.stream(bench.app))
            each = [one for stored in records for one in record.decode(stored.data)]
            return sum(one.stage == "grade" and one.outcome == "answered" for one in each) == 200

        await until(some_hang, "work that hangs")
        told = [row async for row in job.results()]  # while it is open
        assert [row.answers for row in told] == [(Grade(row.row - 1),) for row in told]
        other = await harness.client.job(job.id)
        assert (await other.cancel()).stopping == "canceled"
        found = await job.wait()
        assert found.status == "canceled"
        assert bench.cancelled
        told = [row async for row in job.results()]
        assert [row.answers for row in told if not row.errors] == [(Grade(n),) for n in range(200)]
        assert {row.errors[0].kind for row in told if row.errors} == {"canceled"}
        assert found.done == len(told) < 2_000
        assert (await job.cancel()).status == "canceled"
        assert await harness.dead() == []
        bench.hangs = set()
        await job.retry_failed()
        found = await job.wait()
        assert (found.status, found.succeeded) == ("completed", 2_000)
        assert all(bench.handled[n] == 1 for n in range(200))
        assert [row.row async for row in job.results()] == list(range(1, 2_001))


async def test_a_job_ends_at_its_deadline_with_what_there_is(nats: Settings) -> None:
    bench = Bench()
    bench.hangs = {5}
    async with Harness(bench.app, nats) as harness, harness.worker():
        job = await harness.client.submit("grade", photos(40), deadline="3s")
        while (in_time := len(await harness.messages(Grade))) < 39:
            if (await job.status()).status != "open":
                break  # a machine that is that busy
            await asyncio.sleep(0.05)
        found = await job.wait()
        assert found.status == "expired"
        told = [row async for row in job.results()]
        late = [row for row in told if row.errors]
        assert {row.errors[0].kind for row in late} == {"expired"}
        assert 6 in [row.row for row in late]
        assert len(late) == 1 or in_time < 39
        assert len(told) == 40


async def test_without_workers_whoever_looks_ends_it(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "LONG", 0.1)
    bench = Bench()
    async with Harness(bench.app, nats) as harness:
        job = await harness.client.submit("grade", photos(40), deadline="100ms")
        found = await until(job.wait, "its end")
        assert (found.status, found.done) == ("expired", 0)
        with pytest.raises(JobUnknown):
            await harness.client.job("job-grade-" + "0" * 32)
        with pytest.raises(JobUnknown):
            await harness.client.job("nonsense")


async def test_the_same_key_is_the_same_job(nats: Settings) -> None:
    bench = Bench()
    async with Harness(bench.app, nats) as harness:
        client = harness.client
        job = await client.submit("grade", photos(3), key="k")
        again = await client.submit("grade", photos(3), key="k")
        assert (job.replayed, again.replayed, again.id) == (False, True, job.id)
        with pytest.raises(RequestConflict, match="for a job of other rows"):
            await client.submit("grade", photos(4), key="k")
        other = await client.submit("grade", photos(3), key="k", tenant="another")
        assert other.id != job.id
        with pytest.raises(JobUnknown):
            await client.job(other.id)
        assert [one.id for one in await client.jobs(tenant="another")] == [other.id]
        with pytest.raises(ConfigurationError, match="has no endpoint 'other'"):
            await client.submit("other", photos(1))
        with pytest.raises(ConfigurationError, match="max_failures"):
            await client.submit("grade", photos(1), max_failures=-1)
        empty = await client.submit("grade", [])
        async with harness.worker():
            assert (await empty.wait()).status == "completed"
            assert [row async for row in empty.results()] == []
            assert (await job.wait()).status == "completed"


async def test_nothing_but_bad_rows_and_what_dies(nats: Settings) -> None:
    app = App("plants")

    @app.stage(attempts=1)
    async def grade(photo: Photo) -> Grade:
        raise ValueError("a secret")

    app.endpoint("grade", Photo, answers=Grade)
    async with Harness(app, nats) as harness, harness.worker():
        bad = await harness.client.submit("grade", [{"n": "x"}] * 3)
        assert (await bad.wait()).status == "failed"
        with pytest.raises(MqinferError, match="nothing in it can be tried again"):
            await bad.retry_failed()
        job = await harness.client.submit("grade", photos(1))
        assert (await job.wait()).status == "failed"
        (row,) = [row async for row in job.results()]
        (letter,) = await harness.dead()
        assert row.errors[0].kind == "internal"
        assert "secret" not in row.errors[0].reason
        assert row.errors[0].letter.startswith("grade/job-grade-")
        assert letter.kind == "failed"
