"""`mqinfer state`, `check` and `graph` of a stage that remembers, on a real nats-server."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from mqinfer.settings import Settings
from mqinfer.testing import Harness
from tests.support import state_app

APP = "tests.support.state_app:app"
ROOT = Path(__file__).parents[2]


async def test_states_are_shown_and_begin_anew(
    nats: Settings, told: Callable[..., Awaitable[str]]
) -> None:
    async def ask(*arguments: str, code: int = 0) -> str:
        return await told("state", APP, *arguments, code=code)

    async with Harness(state_app.app, nats) as harness:
        assert await ask("count") == "0 states\n"
        await harness.publish(*(state_app.Step(f"k{n % 2}", n) for n in range(4)))
        await harness.drain()
        listed = await ask("count")
        assert listed.endswith("2 states\n")
        assert "Count(count=2, total=2)" in listed
        assert json.loads(await ask("count", "--json"))[1] == {
            "key": "k1",
            "state": {"count": 2, "total": 4},
            "sequence": 4,
            "changed": json.loads(await ask("count", "k1", "--json"))[0]["changed"],
        }
        assert await ask("count", "k0") == "Count(count=2, total=2)\n"
        assert await ask("count", "k9") == "there is no state of 'k9'\n"
        assert await ask("count", "k0", "--reset") == "the state of 'k0' begins anew\n"
        assert await ask("count", "k0", "--reset") == "there is no state of 'k0'\n"
        assert await ask("count", "k0") == "(begins anew)\n"
        assert json.loads(await ask("count", "k9", "--reset", "--json"))["reset"] is False
        await harness.publish(state_app.Step("k0", 5))
        await harness.drain()
        assert await ask("count", "k0") == "Count(count=1, total=5)\n"
        assert await ask("count", "k0", "--run", "may") == "there is no state of 'k0'\n"
        assert "--reset is of one KEY" in await ask("count", "--reset", code=2)
        assert "has no stage other" in await ask("other", code=2)
        assert "\nstates: 2 keys, " in await told("status", APP, "--interval", "0")
        assert "states of count: 2 can be read" in await told("check", APP)


async def test_a_watch_shows_changes_as_they_come(nats: Settings) -> None:
    async with Harness(state_app.app, nats) as harness:
        await harness.publish(state_app.Step("p", 1))
        await harness.drain()
        watch = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mqinfer", "state", APP, "count", "p", "--watch", "--json"),
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "MQINFER_NATS_URL": nats.nats_url},
        )
        try:
            assert watch.stdout is not None
            async with asyncio.timeout(60):
                assert json.loads(await watch.stdout.readline())["state"]["count"] == 1
                await harness.publish(state_app.Step("p", 2), state_app.Step("q", 2))
                await harness.drain()
                assert json.loads(await watch.stdout.readline())["state"]["count"] == 2
        finally:
            watch.terminate()
            await watch.wait()
