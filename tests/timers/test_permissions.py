"""A stage that sets timers runs under the permissions that are printed for it."""

from __future__ import annotations

from pathlib import Path

from mqinfer.operate.permissions import permissions
from mqinfer.testing import Harness, nats_only, until
from tests.operate.test_permissions import _as, _config
from tests.support import clock_app
from tests.support.timers_app import Answer, Step, app


async def test_timers_are_set_replaced_and_cancelled_under_these(tmp_path: Path) -> None:
    users = {
        stage: permissions(app, [stage], inbox_prefix=f"_INBOX_{stage}") for stage in app.stages
    }
    assert not any("=timers.steps" in subject for subject in users["due"].publish)
    async with (
        nats_only(tmp_path, nats_config=_config(users)) as plain,
        Harness(app, _as(plain, "admin")) as harness,
    ):
        await harness.drain()  # makes consumers and the bucket
        await harness.publish(
            Step("a", 1, "set", 600),
            Step("a", 2, "set", 0.1),
            Step("b", 3, "set", 600),
            Step("b", 3, "cancel", 0),
            Step("c", 4, "alone", 0.1),
        )
        async with Harness(app, _as(plain, "steps")) as limited:
            await limited.drain("steps")
        async with Harness(app, _as(plain, "due")) as limited, limited.worker("due"):

            async def done() -> bool:
                return {one.number for one in await harness.messages(Answer)} == {2, 4}

            await until(done, "both")
        assert await harness.stored("timed=timers", "timed=timers.*.*.at.>") == []


async def test_a_clock_runs_under_these(tmp_path: Path) -> None:
    allowed = permissions(clock_app.app, inbox_prefix="_INBOX_clock")
    async with (
        nats_only(tmp_path, nats_config=_config({"clock": allowed})) as plain,
        Harness(clock_app.app, _as(plain, "admin")) as harness,
    ):
        await harness.drain()  # makes consumers and the buckets
        async with Harness(clock_app.app, _as(plain, "clock")) as limited, limited.worker():

            async def done() -> bool:
                return len(await harness.messages(clock_app.Done)) >= 3

            await until(done, "some ticks")
