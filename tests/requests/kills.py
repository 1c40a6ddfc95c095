"""Requests through kills of who asks, of workers, which track as well, and of the server.

    python -m tests.requests.kills --requests 2000 --kills 40

Every request is to end once, with exactly what the truth says.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mqinfer.requests import state as states
from mqinfer.requests.listing import listed
from mqinfer.requests.state import State
from mqinfer.settings import Settings
from mqinfer.testing import until
from tests.support import kills
from tests.support.kills import Deaths
from tests.support.requests_app import Grade, app, truth


@dataclass
class Plan(Deaths):
    """What is done.

    Attributes:
        requests: that are asked.
        askers: kills of who asks, each between two steps.
        asker_steps: the least and the most that one takes before it dies.
    """

    requests: int
    askers: int
    asker_steps: tuple[int, int] = (1, 12)


async def through(plan: Plan, folder: Path, timeout: float) -> dict[str, Any]:
    """Do it, and compare with the truth.

    Raises:
        AssertionError: a request has not ended, or not with the truth, or ended twice.
    """
    ends: dict[str, set[bytes]] = {}

    def pushed(_subject: str, data: bytes, _header: bytes) -> None:
        state = states.decode(data)
        if not state.open:
            ends.setdefault(state.id, set()).add(data)

    async with kills.grounds(plan, app, folder) as grounds:
        harness = grounds.harness
        core, streams = harness.services.core, harness.services.streams
        assert core is not None
        assert streams is not None
        async with (
            core.listen(f"requests.{app.name}.push.*.*.state", pushed),
            grounds.fleet("requests") as fleet,
            asyncio.TaskGroup() as group,
        ):
            asking = group.create_task(_ask(plan, harness.settings))

            async def all_ended() -> bool:
                found = [one async for one in listed(app, streams)]
                done = len(found) == plan.requests and not any(one.open for one in found)
                return done and asking.done() and fleet.deaths >= plan.kills

            await grounds.kill_server()
            await until(all_ended, "the end of each request", timeout)
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
            "askers killed": deaths,
            **grounds.facts(fleet),
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
    environ = kills.environ(settings)
    while len(ids) < plan.requests:
        # One that died asks its last one again, and goes on.
        first = max(0, len(ids) - 1)
        steps = pick.randint(*plan.asker_steps) if left else 0
        left -= bool(steps)
        asker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.asker", str(first), str(plan.requests)),
            cwd=kills.ROOT,
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
    asked = kills.arguments(__doc__, requests=2000, kills=40, askers=20).parse_args()
    plan = Plan(
        *(asked.requests, asked.askers, (1, max(12, 4 * asked.requests // max(1, asked.askers)))),
        kills=asked.kills,
        server_kills=asked.server_kills,
        steps=(1, max(40, 400 * asked.requests // max(1, asked.kills))),
        seed=asked.seed,
    )
    kills.run(through, plan, asked.timeout)


if __name__ == "__main__":
    main()
