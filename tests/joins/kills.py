"""Joins through kills of workers, which track as well, between any two steps, and of the server.

    python -m tests.joins.kills --roots 2500 --kills 50

Every root is to have one report, and each is to be what the truth says.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mqinfer.settings import Settings
from mqinfer.stack import NatsServer
from mqinfer.testing import Harness, until
from tests.support import joins_app
from tests.support.joins_app import Photo, Report, app, truth

ROOT = Path(__file__).parents[2]


@dataclass
class Plan:
    """What is done.

    Attributes:
        roots: messages that are joined on.
        kills: of workers, each between two steps.
        server_kills: of NATS.
        steps: the least and the most that a worker takes before it dies.
        workers: at once.
        seed: of what is random.
    """

    roots: int
    kills: int
    server_kills: int = 0
    steps: tuple[int, int] = (1, 40)
    workers: int = 2
    seed: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


class Fatal(Protocol):
    """What a fleet must know of a plan; see `Plan`."""

    kills: int
    steps: tuple[int, int]
    workers: int
    seed: int


class Fleet:
    """Worker processes that die, and are followed by others until nobody is to die any more.

    Args:
        plan: of the deaths.
        settings: of the workers.
        app: a module of `tests.support` with an app that dies at the step which a variable says.
    """

    def __init__(self, plan: Fatal, settings: Settings, app: str = "joins"):
        self.plan = plan
        self._app = app
        self.deaths = 0
        self.ends: Counter[int] = Counter()
        self._random = random.Random(plan.seed)
        self._environ = {
            **os.environ,
            "MQINFER_NATS_URL": settings.nats_url,
            "MQINFER_BLOBS": str(settings.blobs),
            "MQINFER_GRACE": "5",
        }
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Keep workers at work until `stop`."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self.plan.workers):
                group.create_task(self._keep())

    def stop(self) -> None:
        self._stop.set()

    async def _keep(self) -> None:
        while not self._stop.is_set():
            dies = self.deaths < self.plan.kills
            self.deaths += dies
            steps = self._random.randint(*self.plan.steps) if dies else 0
            worker = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "mqinfer", "worker", f"tests.support.{self._app}_app:app"),
                cwd=ROOT,
                env={**self._environ, f"{self._app.upper()}_KILL": str(steps)},
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            ended = asyncio.create_task(worker.wait())
            stopped = asyncio.create_task(self._stop.wait())
            try:
                await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                stopped.cancel()
                if worker.returncode is None:
                    worker.send_signal(signal.SIGTERM)
                self.ends[await ended] += 1


async def through(plan: Plan, folder: Path, timeout: float) -> dict[str, Any]:
    """Do it, and compare with the truth.

    Raises:
        AssertionError: a root has no report, more than one, or one that is not the truth.
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
    fleet = Fleet(plan, harness.settings)
    pick = random.Random(plan.seed + 1)
    async with asyncio.TaskGroup() as group:
        group.create_task(fleet.run())
        group.create_task(_publish(harness, plan.roots))

        async def reported() -> bool:
            info = await harness.services.streams.subjects(app.name, "joined.report")  # type: ignore[union-attr]
            return fleet.deaths >= plan.kills and sum(info.values()) >= plan.roots

        try:
            for _ in range(plan.server_kills):
                await asyncio.sleep(pick.uniform(1.0, 4.0))
                server.kill()
                await server.start()
                await server.wait_ready(60)
            await until(reported, "a report for each root", timeout)
        finally:
            fleet.stop()
    await harness.drain()  # nothing is left that could lead to another
    reports = await harness.messages(Report)
    told = Counter(one.n for one in reports)
    wrong = [one for one in reports if one != truth(one.n)]
    assert not wrong, f"{len(wrong)} reports are wrong, such as {wrong[0]}: {truth(wrong[0].n)}"
    assert told == Counter(range(plan.roots)), "a root has no report, or several"
    dead = await harness.dead()
    assert {letter.kind for letter in dead} <= {"rejected"}
    info = await harness.services.streams.stream_info(app.name)  # type: ignore[union-attr]
    assert info is not None
    return {
        "roots": plan.roots,
        "messages": info["state"]["messages"],
        "kills": fleet.ends[-signal.SIGKILL],
        "server kills": plan.server_kills,
        "reports": len(reports),
        "seconds": round(time.monotonic() - began, 1),
    }


async def _publish(harness: Harness, roots: int) -> None:
    for first in range(0, roots, 100):
        await harness.publish(*map(Photo, range(first, min(first + 100, roots))))
        await asyncio.sleep(0.05)


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--roots", type=int, default=2500)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--server-kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--timeout", type=float, default=3600)
    asked = parser.parse_args()
    plan = Plan(
        asked.roots,
        asked.kills,
        asked.server_kills,
        steps=(1, max(40, 120 * asked.roots // max(1, asked.kills))),
        seed=asked.seed,
    )
    print(f"seed {plan.seed}, ack_wait {joins_app.ACK_WAIT:g} s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(through(plan, Path(folder), asked.timeout))), flush=True)


if __name__ == "__main__":
    main()
