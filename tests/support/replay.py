"""What the tests of replays share: message types, and a run worked on until it ends."""

from __future__ import annotations

import asyncio

from mqinfer import Message, wiring
from mqinfer.replay.runs import Runs
from mqinfer.running import Worker
from mqinfer.testing import Harness


class Number(Message, subject="number"):
    value: int


class Noise(Message, subject="noise"):
    value: int


class Double(Message, subject="double"):
    value: int


class Keyed(Message, subject="keyed", key="who"):
    who: str
    value: int = 0


def runs_of(harness: Harness) -> Runs:
    return wiring.runs(harness.app, harness.services.broker)  # type: ignore[arg-type]


async def work(harness: Harness, run: str) -> None:
    """Run a worker of the run until it ends by itself."""
    async with asyncio.timeout(120):
        await Worker(harness.app, settings=harness.settings, run=run).run()
