"""Joins below which a stage does something besides: it sets timers, and remembers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from mqinfer import App, Context, Message
from mqinfer.identity import ROOTS
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from tests.support import beside_app
from tests.support.beside_app import STEPS, Seen

ROOT = Path(__file__).parents[2]


class Photo(Message):
    n: int


class Leaf(Message):
    n: int


class Grade(Message):
    n: int


class Report(Message):
    n: int
    grades: list[int]


async def test_what_comes_of_a_timer_is_not_waited_for(nats: Settings) -> None:
    app = App("plants")

    @app.stage(later=Leaf)
    async def cut(photo: Photo, ctx: Context) -> Leaf:
        await ctx.later(Leaf(100 + photo.n), after=0.2)
        await ctx.later(Leaf(200 + photo.n), after="1h")
        return Leaf(photo.n)

    @app.stage
    async def grade(leaf: Leaf) -> Grade:
        return Grade(leaf.n)

    @app.join(Photo, of=Grade)
    async def report(photo: Photo, grades: list[Grade]) -> Report:
        return Report(photo.n, [grade.n for grade in grades])

    async with Harness(app, nats) as harness:
        await harness.publish(Photo(1))
        await harness.drain()
        assert await harness.messages(Report) == [Report(1, [1])]
        assert await harness.timers("cut")  # that of the hour, at least

        async def come() -> bool:
            return Leaf(101) in await harness.messages(Leaf)

        await until(come, "the timer")
        await harness.drain()
        assert sorted(one.n for one in await harness.messages(Grade)) == [1, 101]
        assert await harness.messages(Report) == [Report(1, [1])]
        leaves = await harness.stored(subject="plants.leaf")
        assert [ROOTS in one.headers for one in leaves] == [True, False]


async def dies(settings: Settings, at: str) -> None:
    """A worker that is killed at a step."""
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mqinfer", "worker", "tests.support.beside_app:app"),
        cwd=ROOT,
        env={
            **os.environ,
            "MQINFER_NATS_URL": settings.nats_url,
            "MQINFER_BLOBS": str(settings.blobs),
            "BESIDE_DIES": at,
        },
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(120):
            assert await worker.wait() == -signal.SIGKILL, at
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()


async def test_a_death_between_any_two_steps_loses_and_repeats_nothing(nats: Settings) -> None:
    """Outputs, timers, the record and the state are stored one behind the other, each once."""
    deaths = [*STEPS, "ack"]
    async with Harness(beside_app.app, nats) as harness:
        for n, at in enumerate(deaths, 1):
            await harness.publish(beside_app.Photo("p1", n))
            await dies(nats, at)
        await harness.drain()
        total = len(deaths)
        assert await harness.state("cut", "p1") == Seen(total)

        async def come() -> bool:
            return len(await harness.messages(beside_app.Due)) >= total

        await until(come, "all timers")
        for kind in (beside_app.Leaf, beside_app.Due):
            found = [(one.n, one.count) for one in await harness.messages(kind)]
            assert sorted(found) == [(n, n) for n in range(1, total + 1)]
        reports = sorted(await harness.messages(beside_app.Report), key=lambda one: one.n)
        assert reports == [beside_app.Report(n, [n]) for n in range(1, total + 1)]
        assert await harness.dead() == []
