"""Who asks, and each part of a worker, runs under the permissions that are printed for it."""

from __future__ import annotations

from pathlib import Path

import pytest

import mqinfer
from mqinfer import App, Message
from mqinfer.completion.waited import TRACKER
from mqinfer.errors import ConfigurationError
from mqinfer.jobs.places import TASK as JOBS
from mqinfer.operate.permissions import permissions, requester
from mqinfer.requests.places import TASK
from mqinfer.testing import Harness, nats_only, until
from tests.joins.test_joins_permitted import config, of_user


class Photo(Message):
    n: int


class Leaf(Message):
    n: int


class Grade(Message):
    n: int


app = App("least")


@app.stage
async def cut(photo: Photo) -> list[Leaf]:
    return [Leaf(n) for n in range(photo.n)]


@app.stage
async def grade(leaf: Leaf) -> Grade:
    return Grade(leaf.n)


app.endpoint("grade", Photo, answers=Grade, deadline="1h")
app.endpoint("other", Photo, answers=Grade, deadline="1h")
STAGES = {
    "cut": "cut", "grade": "grade", "tracker": TRACKER,
    "open": TASK + "grade", "jobs": JOBS,
}  # fmt: skip


async def test_everybody_runs_under_the_permissions_that_are_printed(tmp_path: Path) -> None:
    users = {
        user: permissions(app, [name], inbox_prefix=f"_INBOX_{user}")
        for user, name in STAGES.items()
    }
    users["web"] = requester(app, ["grade"], inbox_prefix="_INBOX_web")
    async with (
        nats_only(tmp_path, nats_config=config(users)) as plain,
        Harness(app, of_user(plain, "admin")) as harness,
    ):
        await harness.drain()  # makes consumers and buckets
        async with mqinfer.connect(app, of_user(plain, "web")) as client:
            request = await client.request(Photo(3), endpoint="grade")
            assert await request.progress() == (0, 0)
            async with (
                Harness(app, of_user(plain, "cut")) as one,
                Harness(app, of_user(plain, "grade")) as two,
                Harness(app, of_user(plain, "tracker")) as three,
                Harness(app, of_user(plain, "open")) as four,
                Harness(app, of_user(plain, "jobs")) as five,
                one.worker("cut"), two.worker("grade"), three.worker(TRACKER),
                four.worker(TASK + "grade"), five.worker(JOBS),
            ):  # fmt: skip
                assert await request.result(wait=60) == (Grade(0), Grade(1), Grade(2))
                told = [event.answer async for event in request if event.kind == "answer"]
                assert told == [Grade(0), Grade(1), Grade(2)]
                job = await client.submit("grade", [Photo(2)] * 20)
                assert (await job.wait()).status == "completed"
                stopped = await client.submit("grade", [Photo(2)] * 20)
                assert (await stopped.cancel()).rows == 20
                await stopped.wait()
                for harness_of in (one, two, three, four, five):
                    broker = harness_of.services.broker
                    assert not broker.denied  # type: ignore[attr-defined]
            another = await client.request(Photo(1), endpoint="grade", key="k")
            assert await another.cancel()
            assert (await client.request(Photo(1), endpoint="grade", key="k")).replayed

            async def told_to_workers() -> bool:
                await client._services.broker.flush()
                return True

            await until(told_to_workers, "what was said")
            assert not client._services.broker.denied  # type: ignore[attr-defined]
        assert await harness.dead() == []


def test_a_requester_is_no_worker() -> None:
    allowed = requester(app, ["grade"])
    assert allowed.subscribe == ("_INBOX.>", "requests.least.push.grade.*.*")
    assert "$KV.least-requests.grade.*" in allowed.publish
    for subject in allowed.publish:
        assert "ACK" not in subject
        assert "CONSUMER" not in subject
        assert "settled" not in subject
        assert not subject.startswith("requests.least.event")
    with pytest.raises(ConfigurationError, match="no endpoint nothing; it has grade, other"):
        requester(app, ["nothing"])
