"""A worker of a stage that remembers runs under exactly the permissions that are printed for it."""

from __future__ import annotations

from pathlib import Path

from mqinfer import App, Message, State
from mqinfer.operate.permissions import Permissions, permissions
from mqinfer.replay.runs import Wanted
from mqinfer.settings import Settings
from mqinfer.testing import Harness, nats_only
from tests.support.replay import runs_of, work


class Step(Message, key="who", ordered=True):
    who: str
    value: int


class Total(State, ttl="1h"):
    total: int = 0


app = App("least", partitions=2)


@app.stage
async def add(step: Step, state: Total) -> None:
    state.total += step.value


def _config(allowed: Permissions) -> str:
    return (
        'authorization { users = [\n{user: "admin", password: "admin"}\n'
        f'{{user: "worker", password: "worker", {allowed.config()}}}\n] }}\n'
    )


def _as(settings: Settings, user: str) -> Settings:
    return Settings.load(
        {},
        nats_url=settings.nats_url,
        blobs=settings.blobs,
        grace=0.5,
        nats_user=user,
        nats_password=user,
        nats_inbox_prefix="_INBOX" if user == "admin" else f"_INBOX_{user}",
    )


async def test_a_stage_that_remembers_needs_no_more_than_is_printed(tmp_path: Path) -> None:
    allowed = permissions(app, inbox_prefix="_INBOX_worker", replays=["r1"])
    async with (
        nats_only(tmp_path, nats_config=_config(allowed)) as plain,
        Harness(app, _as(plain, "admin")) as harness,
    ):
        await harness.drain()  # makes streams, consumers and buckets
        await harness.publish(Step("p", 1), Step("p", 2), Step("q", 4))
        await harness.publish_bytes("least.step", b'{"who": "", "value": 8}')
        async with Harness(app, _as(plain, "worker")) as limited:
            await limited.drain()
        live = {"p": Total(3), "q": Total(4), "": Total(8)}
        assert await harness.client.states("add") == live
        await runs_of(harness).create(stage="add", wanted=Wanted(), name="r1")
        async with Harness(app, _as(plain, "worker")) as limited:
            await work(limited, "r1")
        assert await harness.client.states("add", run="r1") == live
