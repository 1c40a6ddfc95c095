"""States under SIGKILL between every two steps: `python -m tests.faults.states --messages 50000`.

Workers die at the points of `stateworker`, one after the other, and are replaced; the server is
killed now and then. At the end the answers of each key must count 1, 2, 3, ... with the sums of
what was not rejected, each once and in order, and the states must say what the last answers do.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from mqinfer.adapters.jetstream import JetStream
from mqinfer.errors import Unavailable
from mqinfer.settings import Settings
from mqinfer.stack import Stack, StackSettings
from mqinfer.testing import Harness, until
from tests.support import state_app

from .stateworker import POINTS

ROOT = Path(__file__).parents[2]
WORKERS = 2


class Faults:
    """One run.

    Args:
        folder: for the servers' data.
        messages: that are published; more, where those are answered before all kills are done.
        keys: over which they are spread.
        kills: of workers.
        servers: kills of the server.
        seed: of what is random.
    """

    def __init__(
        self, folder: Path, *, messages: int, keys: int, kills: int, servers: int, seed: int
    ):
        self._folder = folder
        self._messages = messages
        self._keys = [f"key {number}" for number in range(keys)]
        self._kills = kills
        self._more = messages // kills
        self._servers = servers
        self._random = random.Random(seed)
        self.deaths: dict[str, int] = defaultdict(int)

    async def __call__(self) -> None:
        """Run it.

        Raises:
            AssertionError: a message was lost, or counted twice, or in another order.
        """
        chosen = StackSettings(dir=self._folder, nats_port=0, triton=False, clickhouse=False)
        async with Stack(chosen) as stack:
            settings = Settings.load(
                {}, nats_url=stack.nats_url, blobs=str(self._folder / "blobs"), grace=5.0
            )
            async with Harness(state_app.app, settings) as harness:
                async with asyncio.TaskGroup() as group:
                    workers = group.create_task(self._workers(harness, settings, stack))
                    for first in range(0, self._messages, 500):
                        await self._publish(harness, first, min(first + 500, self._messages))
                    await workers
                await harness.drain()  # what was answered and not acknowledged by the dead
                await self._check(harness)

    async def _publish(self, harness: Harness, first: int, end: int) -> None:
        numbers = range(first, end)
        await harness.publish(*(state_app.Step(self._key(n), n) for n in numbers))

    def _key(self, number: int) -> str:
        return self._keys[number * number % len(self._keys)]

    async def _workers(self, harness: Harness, settings: Settings, stack: Stack) -> None:
        """Start workers that die, one after the other, and at last one that does not."""
        running: list[tuple[str, asyncio.subprocess.Process]] = []
        servers = sorted(self._random.sample(range(self._kills), self._servers))
        points = [POINTS[number % len(POINTS)] for number in range(self._kills)]
        self._random.shuffle(points)
        try:
            while points or running:
                while points and len(running) < WORKERS:
                    point = points.pop()
                    passages = self._random.randrange(1, self._more // 2)
                    running.append((point, await self._start(settings, point, max(1, passages))))
                ended = [one for one in running if one[1].returncode is not None]
                for point, worker in ended:
                    assert worker.returncode == -signal.SIGKILL, worker.returncode
                    self.deaths[point] += 1
                    running.remove((point, worker))
                if servers and sum(self.deaths.values()) > servers[0]:
                    servers.pop(0)
                    assert stack.nats is not None
                    stack.nats.kill()
                    await stack.nats.wait()
                    await stack.nats.start()
                    await stack.nats.wait_ready()
                if not ended:
                    if await self._all_answered(harness):  # nothing is left to die of
                        first, self._messages = self._messages, self._messages + self._more
                        await self._publish(harness, first, self._messages)
                    await asyncio.sleep(0.05)
            running.append(("never", await self._start(settings, "never", 1)))
            await until(lambda: self._all_answered(harness), "all answers", 600)
        finally:
            for _, worker in running:
                if worker.returncode is None:
                    worker.send_signal(signal.SIGTERM)
            for _, worker in running:
                await worker.wait()

    async def _all_answered(self, harness: Harness) -> bool:
        """Whether there is an answer or a dead letter for each message."""
        broker = harness.services.broker
        assert isinstance(broker, JetStream)
        try:
            streams = [await broker.stream_info(name) for name in ("states", "states-dead")]
        except Unavailable:
            return False
        stored = sum(info["state"]["messages"] for info in streams if info is not None)
        return stored >= 2 * self._messages

    async def _start(
        self, settings: Settings, point: str, passages: int
    ) -> asyncio.subprocess.Process:
        environ = {
            **os.environ,
            "MQINFER_NATS_URL": settings.nats_url,
            "MQINFER_BLOBS": str(settings.blobs),
        }
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.faults.stateworker", point, str(passages)),
            cwd=ROOT,
            env=environ,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def _check(self, harness: Harness) -> None:
        expected: dict[str, list[tuple[int, int]]] = defaultdict(list)
        # As they stand in the stream: what was sent again, after a death of the server, came later.
        numbers = [step.number for step in await harness.messages(state_app.Step)]
        assert sorted(numbers) == list(range(self._messages))
        for number in numbers:
            if not state_app.rejected(number):
                answers = expected[self._key(number)]
                count, total = answers[-1] if answers else (0, 0)
                answers.append((count + 1, total + number))
        found: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for one in await harness.messages(state_app.Counted):
            found[one.position].append((one.count, one.total))
        differ = {
            key: (found[key], expected[key]) for key in expected if found[key] != expected[key]
        }
        assert not differ, differ
        assert await harness.client.states("count") == {
            key: state_app.Count(*answers[-1]) for key, answers in expected.items()
        }
        dead = [letter.sequence for letter in await harness.dead()]
        assert len(dead) == len(set(dead))


def main() -> None:
    """Run it; what is not as it should be is raised."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.states", description=__doc__)
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--keys", type=int, default=500)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--servers", type=int, default=5)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="mqinfer-states-") as folder:
        faults = Faults(
            Path(folder),
            messages=chosen.messages,
            keys=chosen.keys,
            kills=chosen.kills,
            servers=chosen.servers,
            seed=chosen.seed,
        )
        asyncio.run(faults())
    for point, count in sorted(faults.deaths.items()):
        print(f"{count:4} deaths: {point}")
    print(f"{chosen.messages:,} messages, each counted once and in order")


if __name__ == "__main__":
    main()
