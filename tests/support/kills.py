"""Workers that are killed between any two steps, and a server that is, while something goes on.

What `tests/joins/kills.py`, `tests/requests/kills.py` and `tests/jobs/kills.py` have in common.
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
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mqinfer import App
from mqinfer.settings import Settings
from mqinfer.stack import NatsServer
from mqinfer.testing import Harness

ROOT = Path(__file__).parents[2]


@dataclass(kw_only=True)
class Deaths:
    """Who dies.

    Attributes:
        kills: of workers, each between two steps.
        server_kills: of NATS.
        steps: the least and the most that a worker takes before it dies.
        workers: at once.
        seed: of what is random.
    """

    kills: int
    server_kills: int = 0
    steps: tuple[int, int] = (1, 40)
    workers: int = 2
    seed: int = 0


class Fleet:
    """Worker processes that die, and are followed by others until nobody is to die any more.

    Args:
        plan: of the deaths.
        settings: of the workers.
        app: a module of `tests.support` with an app that dies at the step which a variable says.
        more: arguments of each worker.
    """

    def __init__(self, plan: Deaths, settings: Settings, app: str, *more: str):
        self.plan = plan
        self.deaths = 0
        self.ends: Counter[int] = Counter()
        self._app = app
        self._more = more
        self._random = random.Random(plan.seed)
        self._environ = environ(settings)
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
                *self._more,
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


@dataclass
class Grounds:
    """Where it happens.

    Attributes:
        plan: of the deaths.
        harness: of the app.
        server: that is killed.
        began: when, in seconds of the monotonic clock.
    """

    plan: Deaths
    harness: Harness
    server: NatsServer
    began: float

    @asynccontextmanager
    async def fleet(self, app: str, *more: str) -> AsyncIterator[Fleet]:
        """Inside, workers are at work, and die; see `Fleet`."""
        fleet = Fleet(self.plan, self.harness.settings, app, *more)
        async with asyncio.TaskGroup() as group:
            group.create_task(fleet.run())
            try:
                yield fleet
            finally:
                fleet.stop()

    async def kill_server(self) -> None:
        """Kill the server as often as is planned; it is back each time."""
        pick = random.Random(self.plan.seed + 1)
        for _ in range(self.plan.server_kills):
            await asyncio.sleep(pick.uniform(1.0, 4.0))
            self.server.kill()
            await self.server.start()
            await self.server.wait_ready(300)

    def facts(self, fleet: Fleet) -> dict[str, Any]:
        """What befell, and how long it took."""
        return {
            "kills": fleet.ends[-signal.SIGKILL],
            "server kills": self.plan.server_kills,
            "seconds": round(time.monotonic() - self.began, 1),
        }


@asynccontextmanager
async def grounds(plan: Deaths, app: App, folder: Path, **more: str) -> AsyncIterator[Grounds]:
    """A server of its own, and a harness for the app; with more settings of it."""
    server = NatsServer(folder / "nats", log=folder / "nats.log")
    await server.start()
    try:
        await server.wait_ready(300)
        blobs = str(folder / "blobs")
        settings = Settings.load({}, nats_url=server.url, blobs=blobs, grace=5.0, **more)
        async with Harness(app, settings) as harness:
            yield Grounds(plan, harness, server, time.monotonic())
    finally:
        await server.stop()


def environ(settings: Settings) -> dict[str, str]:
    """What a process of this app's has in its environment."""
    return {
        **os.environ,
        "MQINFER_NATS_URL": settings.nats_url,
        "MQINFER_CLICKHOUSE_URL": settings.clickhouse_url,
        "MQINFER_BLOBS": str(settings.blobs),
        "MQINFER_GRACE": "5",
    }


def arguments(doc: str | None, **counts: int) -> argparse.ArgumentParser:
    """A command line with these counts, by their defaults."""
    parser = argparse.ArgumentParser(description=doc)
    for name, count in counts.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=count)
    parser.add_argument("--server-kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--timeout", type=float, default=3600)
    return parser


P = TypeVar("P", bound=Deaths)


def run(
    through: Callable[[P, Path, float], Coroutine[Any, Any, dict[str, Any]]],
    plan: P,
    timeout: float,
) -> None:
    """Do it in a folder of its own, and print the facts."""
    print(f"seed {plan.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(through(plan, Path(folder), timeout))), flush=True)
