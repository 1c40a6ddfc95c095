"""Requests through kills of who asks, of workers, which track as well, and of the server.

    python -m tests.requests.kills --requests 2000 --kills 40

Every request is to end once, with exactly what the truth says.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mqinfer.requests import state as states
from mqinfer.requests.listing import listed
from mqinfer.requests.state import State
from mqinfer.settings import Settings
from mqinfer.stack import NatsServer
from mqinfer.testing import Harness, until
from tests.joins.kills import ROOT, Fleet
from tests.support.requests_app import Grade, app, truth


@dataclass
class Plan:
    """What is done.

    Attributes:
        requests: that are asked.
        kills: of workers, each between two steps.
        askers: of who asks, each between two steps.
        server_kills: of NATS.
        steps: the least and the most that a worker takes before it dies.
        asker_steps: so for who asks.
        workers: at once.
        seed: of what is random.
    """

    requests: int
    kills: int
    askers: int
    server_kills: int = 0
    steps: tuple[int, int] = (1, 40)
    asker_steps: tuple[int, int] = (1, 12)
    workers: int = 2
    seed: int = 0


async def through(plan: Plan, folder: Path, timeout: float) -> dict[str, Any]:
    """Do it, and compare with the truth.

    Raises:
        AssertionError: a request has not ended, or not with the truth, or ended twice.
    """
    server = NatsServer(folder / "nats", log=folder / "nats.log")
    await server.start()
    try:
        await server.wait_ready(60)
        settings = Settings.load({}, nats_url=server.url, blobs=str(folder / "blobs"), grace=5.0)
        async with Harness(app, settings) as harness:
            return await _through(plan, harness, server, timeout)
    finally:
        await server.stop()


async def _through(
    plan: Plan, harness: Harness, server: NatsServer, timeout: float
) -> dict[str, Any]:
    began = time.monotonic()
    fleet = Fleet(plan, harness.settings, "requests")
    pick = random.Random(plan.seed + 1)
    ends: dict[str, set[bytes]] = {}

    def pushed(_subject: str, data: bytes, _header: bytes) -> None:
        state = states.decode(data)
        if not state.open:
            ends.setdefault(state.id, set()).add(data)

    core, streams = harness.services.core, harness.services.streams
    assert core is not None
    assert streams is not None
    async with (
        core.listen(f"requests.{app.name}.push.*.*.state", pushed),
        asyncio.TaskGroup() as group,
    ):
        group.create_task(fleet.run())
        asking = group.create_task(_ask(plan, harness.settings))

        async def all_ended() -> bool:
            found = [one async for one in listed(app, streams)]
            done = len(found) == plan.requests and not any(one.open for one in found)
            return done and asking.done() and fleet.deaths >= plan.kills

        try:
            for _ in range(plan.server_kills):
                await asyncio.sleep(pick.uniform(1.0, 4.0))
                server.kill()
                await server.start()
                await server.wait_ready(60)
            await until(all_ended, "the end of each request", timeout)
        finally:
            fleet.stop()
    await harness.drain()  # nothing is left that could lead to another end
    found = {one.id: one async for one in listed(app, streams)}
    ids, deaths = asking.result()
    for n, identity in ids.items():
        _compare(n, found[identity])
        assert len(ends.get(identity, ())) <= 1, f"request {n} has ended twice"
        assert ends.get(identity, set()) <= {states.encode(found[identity])}
    assert len(ids) == len(found) == plan.requests
    assert {letter.kind for letter in await harness.dead()} <= {"rejected"}
    return {
        "requests": plan.requests,
        "ends": dict(Counter(one.status for one in found.values())),
        "kills": fleet.ends[-signal.SIGKILL],
        "askers killed": deaths,
        "server kills": plan.server_kills,
        "seconds": round(time.monotonic() - began, 1),
    }


def _compare(n: int, state: State) -> None:
    expected = truth(n)
    answers = [json.loads(one.body.payload) for one in state.answers]
    assert answers == [{"n": one.n, "i": one.i} for one in expected.answers], (n, state)
    assert (state.status, len(state.errors)) == (expected.status, expected.errors), (n, state)
    assert {one.type for one in state.answers} <= {Grade.__mqinfer__.subject}


async def _ask(plan: Plan, settings: Settings) -> tuple[dict[int, str], int]:
    """Ask for everything, by processes that die; the ids, and how many died."""
    pick = random.Random(plan.seed + 2)
    ids: dict[int, str] = {}
    left, deaths = plan.askers, 0
    environ = {**os.environ, "MQINFER_NATS_URL": settings.nats_url, "MQINFER_BLOBS": settings.blobs}
    while len(ids) < plan.requests:
        # One that died asks its last one again, and goes on.
        first = max(0, len(ids) - 1)
        steps = pick.randint(*plan.asker_steps) if left else 0
        left -= bool(steps)
        asker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.asker", str(first), str(plan.requests)),
            cwd=ROOT,
            env={**environ, "REQUESTS_KILL": str(steps)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            out, _ = await asker.communicate()
        finally:
            if asker.returncode is None:
                asker.kill()
                await asker.wait()
        deaths += asker.returncode == -signal.SIGKILL
        for line in out.decode().splitlines():
            if line.startswith("asked "):  # beside what is logged
                _, number, identity = line.split()
                assert ids.setdefault(int(number), identity) == identity
    return ids, deaths


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--askers", type=int, default=20)
    parser.add_argument("--server-kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--timeout", type=float, default=3600)
    asked = parser.parse_args()
    plan = Plan(
        *(asked.requests, asked.kills, asked.askers, asked.server_kills),
        steps=(1, max(40, 400 * asked.requests // max(1, asked.kills))),
        asker_steps=(1, max(12, 4 * asked.requests // max(1, asked.askers))),
        seed=asked.seed,
    )
    print(f"seed {plan.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(through(plan, Path(folder), asked.timeout))), flush=True)


if __name__ == "__main__":
    main()
