"""While a handler blocks the event loop its worker keeps what it holds: nothing is handled twice.

The worker that blocks is a process of its own, on a real server; another one, here, takes whatever
the server would give it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mqinfer import plan
from mqinfer.adapters.jetstream import JetStream
from mqinfer.adapters.scan import Scanner
from mqinfer.operate.status import gather, warnings
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from tests.support.blocking_app import ACK_WAIT, PARTITIONS, Done, Leaf, Task, app

HELD = 20


class Blocker:
    """The worker that blocks, and what all workers wrote down."""

    def __init__(self, log: Path):
        self.log = log
        self.process: asyncio.subprocess.Process

    def lines(self, what: str) -> list[tuple[int, int, int]]:
        """Process, number and attempt of each such line."""
        if not self.log.exists():
            return []
        words = [line.split() for line in self.log.read_text().splitlines()]
        return [(int(pid), int(n), int(a)) for said, pid, n, a in words if said == what]

    def let_go(self) -> None:
        Path(f"{self.log}.go").touch()


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where handlers write down what they do; those in this process do not block."""
    monkeypatch.setenv("BLOCKING_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


@asynccontextmanager
async def blocker(settings: Settings, log: Path, stage: str, held: int) -> AsyncIterator[Blocker]:
    """A worker of one stage that is about to hold so many messages and to block."""
    found = Blocker(log)
    with (log.parent / "err").open("w") as errors:
        found.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mqinfer", "worker", "tests.support.blocking_app:app"),
            *("--stage", stage),
            cwd=Path(__file__).parents[2],
            env={
                **os.environ,
                "MQINFER_NATS_URL": settings.nats_url,
                "MQINFER_BLOBS": str(settings.blobs),
                "BLOCKING_HELD": str(held),
            },
            stdout=asyncio.subprocess.DEVNULL,
            stderr=errors,
        )
    try:
        yield found
    finally:
        found.process.kill()
        await found.process.wait()


async def state(harness: Harness, stage: str) -> Any:
    """Of its consumers, added up."""
    task = next(task for task in plan.tasks(app, None) if task.name == stage)
    broker = harness.services.broker
    found = [
        await broker.consumer_state(one.stream, one.name) for one in plan.consumer_specs(app, task)
    ]
    return [state for state in found if state is not None]


async def lag(harness: Harness, stage: str) -> int:
    return sum(one.lag for one in await state(harness, stage))


async def test_what_a_blocked_worker_holds_is_handled_once(nats: Settings, log: Path) -> None:
    async with Harness(app, nats) as harness, blocker(nats, log, "hold", HELD) as blocked:
        await harness.publish(*(Task(n) for n in range(HELD)))
        await until(lambda: blocked.lines("block"), "a worker that blocks")
        # What comes now lies in its socket, and nobody renews that: it is for the other worker.
        await harness.publish(Task(HELD))

        async def lies_in_the_socket() -> bool:
            return (await state(harness, "hold"))[0].unacknowledged == HELD + 1

        await until(lies_in_the_socket, "one more message on its way to it")
        async with harness.worker("hold"):
            await until(
                lambda: any(n == HELD for _, n, _ in blocked.lines("end")),
                "the message that the blocked worker has not read",
            )
            await asyncio.sleep(2 * ACK_WAIT)
            begun = [found for found in blocked.lines("begin") if found[1] < HELD]
            assert len(begun) == HELD
            blocked.let_go()
            await until(lambda: len(blocked.lines("end")) == HELD + 1, "the end of all")
            await until(lambda: lag_is_zero(harness, "hold"), "all acknowledged")
        pid = blocked.process.pid
        begun = blocked.lines("begin")
        assert sorted(found for found in begun if found[1] < HELD) == [
            (pid, n, 1) for n in range(HELD)
        ]
        assert [pid for pid, n, _ in begun if n == HELD] == [os.getpid()]
        assert sorted(done.n for done in await harness.messages(Done)) == list(range(1, HELD, 2))

        # What it read at last, and let go, is told.
        async def told() -> bool:
            broker = harness.services.broker
            assert isinstance(broker, JetStream)
            found = await gather(app, Scanner(broker.client))
            task = next(task for task in found.tasks if task.name == "hold")
            return task.lapsed > 0 and any("hold" in line for line in warnings(found))

        await until(told, "the count of what it let go")


async def lag_is_zero(harness: Harness, stage: str) -> bool:
    return await lag(harness, stage) == 0


async def test_a_blocked_worker_keeps_its_partitions(nats: Settings, log: Path) -> None:
    held = 4
    async with Harness(app, nats) as harness, blocker(nats, log, "follow", held) as blocked:
        for step in range(3):
            await harness.publish(*(Leaf(n, step) for n in range(PARTITIONS)))
        await until(lambda: blocked.lines("block"), "a worker that blocks")
        async with harness.worker("follow"):
            await asyncio.sleep(2 * ACK_WAIT)
            blocked.let_go()
            await until(lambda: len(blocked.lines("end")) == 3 * PARTITIONS, "the end of all")
            await until(lambda: lag_is_zero(harness, "follow"), "all acknowledged")
        begun = blocked.lines("begin")
        assert len(begun) == 3 * PARTITIONS
        for n in range(PARTITIONS):
            assert [number % 10 for _, number, _ in begun if number // 10 == n] == [0, 1, 2]
        assert len([done.n for done in await harness.messages(Done)]) == 3 * PARTITIONS // 2


async def test_a_worker_that_blocks_for_longer_than_it_may_is_given_up(
    nats: Settings, log: Path
) -> None:
    async with Harness(app, nats) as harness, blocker(nats, log, "hang", HELD) as blocked:
        await harness.publish(*(Task(n) for n in range(HELD)))
        await until(lambda: blocked.lines("block"), "a worker that blocks")
        async with harness.worker("hang"):

            def by_the_other() -> bool:
                ended = {n for pid, n, _ in blocked.lines("end") if pid == os.getpid()}
                return ended == set(range(HELD))

            await until(by_the_other, "its messages, handled by another worker")
            told = (log.parent / "err").read_text()
            assert "the worker is given up" in told
            assert "s by stage hang at" in told
            blocked.let_go()
            await until(lambda: len(blocked.lines("end")) == 2 * HELD, "its own handlers")
            await until(lambda: lag_is_zero(harness, "hang"), "all acknowledged")
        assert sorted(done.n for done in await harness.messages(Done)) == list(range(HELD))
