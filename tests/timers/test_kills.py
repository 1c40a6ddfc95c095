"""Timers through kills of workers and of the server: never early, one effect each, none lost."""

from __future__ import annotations

import datetime
from collections import Counter
from itertools import pairwise
from pathlib import Path

from mqinfer.settings import Settings
from mqinfer.stack import NatsServer
from mqinfer.streams import Stored
from mqinfer.testing import Harness, until
from mqinfer.timers import places
from tests.support import clock_app
from tests.support.fleet import Fleet
from tests.support.timers_app import Answer, Due, Step, app

ALONE = 60
NAMED = 40
APP = "tests.support.timers_app:app"


async def reminders(harness: Harness) -> list[Stored]:
    return await harness.stored(subject="timed.due.>")


async def check(harness: Harness, wanted: set[tuple[str, int]]) -> None:
    """Exactly these have come, none before its time, and each had one effect."""

    async def done() -> bool:
        answers = {(one.position, one.number) for one in await harness.messages(Answer)}
        lag = [await harness.lag(name) for name in ("steps", "due")]
        return answers >= wanted and lag == [0, 0]

    await until(done, "all answers", timeout=120)
    come = await reminders(harness)
    for one in come:
        due = datetime.datetime.fromisoformat(one.headers[places.DUE])
        assert one.time >= due
    answers = Counter((one.position, one.number) for one in await harness.messages(Answer))
    assert set(answers) == wanted
    assert set(answers.values()) == {1}
    ids: dict[tuple[str, int], set[str]] = {}
    for one, message in zip(come, await harness.messages(Due), strict=True):
        ids.setdefault((message.position, message.number), set()).add(one.headers["Mq-Id"])
    assert all(len(found) == 1 for found in ids.values())
    assert await harness.stored("timed=timers", "timed=timers.*.*.at.>") == []


def steps() -> tuple[list[Step], set[tuple[str, int]]]:
    """What is published, and which timers are to come of it."""
    alone = [Step(f"a{n}", n, "alone", 0.5 + n * 0.1) for n in range(ALONE)]
    named: list[Step] = []
    wanted = {(step.position, step.number) for step in alone}
    for n in range(NAMED):
        position = f"n{n}"
        named += [Step(position, 0, "set", 600), Step(position, 1, "set", 600)]
        if n % 2:
            named.append(Step(position, 2, "set", 1.0 + n * 0.1))
            wanted.add((position, 2))
        else:
            named.append(Step(position, 3, "cancel", 0))
    return [*named, *alone], wanted


async def test_workers_are_killed_around_the_times(nats: Settings) -> None:
    async with Harness(app, nats) as harness, Fleet(nats, APP, 2) as fleet:
        messages, wanted = steps()
        await harness.publish(*messages)
        killed = 0
        while len(await reminders(harness)) < len(wanted):
            await fleet.kill_one()
            killed += 1
            before = len(await reminders(harness))
            await until(lambda before=before: moved(harness, before, len(wanted)), "some more")
        assert killed > 3
        await check(harness, wanted)


async def moved(harness: Harness, before: int, end: int) -> bool:
    return len(await reminders(harness)) >= min(before + 10, end)


async def test_the_server_is_killed_around_the_times(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats", log=tmp_path / "nats.log")
    await server.start()
    try:
        await server.wait_ready(300)
        settings = Settings.load({}, nats_url=server.url, blobs=str(tmp_path / "blobs"), grace=5.0)
        async with Harness(app, settings) as harness, Fleet(settings, APP, 1):
            messages, wanted = steps()
            await harness.publish(*messages)
            for part in (1, 30, 60):
                await until(lambda part=part: moved(harness, part - 10, part), "some more")
                server.kill()
                await server.wait()
                await server.start()
                await server.wait_ready(300)
            await check(harness, wanted)
    finally:
        await server.stop()


async def ticked(harness: Harness, count: int) -> list[Stored]:
    found = await harness.stored(subject="clock.=tick.beat")
    return found if len(found) >= count else []


async def check_ticks(harness: Harness) -> None:
    """One a second without a gap, none early, one answer each."""
    assert await harness.dead() == []  # of which no answer would come

    async def settled() -> bool:
        if await harness.lag("beat"):  # the tick that was set ahead has come since the last worker
            await harness.drain("beat")
        found = await harness.stored(subject="clock.=tick.beat")
        times = {datetime.datetime.fromisoformat(one.headers[places.DUE]) for one in found}
        answers = {one.at for one in await harness.messages(clock_app.Done)}
        return answers == times and await harness.lag("beat") == 0

    await until(settled, "all answers", timeout=120)
    found = await harness.stored(subject="clock.=tick.beat")
    due = [datetime.datetime.fromisoformat(one.headers[places.DUE]) for one in found]
    assert all(one.time >= at for one, at in zip(found, due, strict=True))
    times = sorted(set(due))
    assert {later - at for at, later in pairwise(times)} == {datetime.timedelta(seconds=1)}
    answers = Counter(one.at for one in await harness.messages(clock_app.Done))
    assert set(answers.values()) == {1}


async def test_a_clock_through_kills_of_workers_and_a_time_without_any(nats: Settings) -> None:
    async with Harness(clock_app.app, nats) as harness:
        async with Fleet(nats, "tests.support.clock_app:app", 2) as fleet:
            for count in (2, 4, 6, 8):
                await until(lambda count=count: ticked(harness, count), "some ticks")
                await fleet.kill_one()
        last = (await harness.stored(subject="clock.=tick.beat"))[-1].headers[places.DUE]
        gone = datetime.datetime.fromisoformat(last) + datetime.timedelta(seconds=4)
        await until(lambda: datetime.datetime.now(datetime.UTC) > gone, "ticks that are missed")
        async with Fleet(nats, "tests.support.clock_app:app", 2):
            before = len(await ticked(harness, 0))
            await until(lambda: ticked(harness, before + 6), "what was missed")
        await harness.drain()
        await check_ticks(harness)


async def test_a_clock_through_kills_of_the_server(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats", log=tmp_path / "nats.log")
    await server.start()
    try:
        await server.wait_ready(300)
        settings = Settings.load({}, nats_url=server.url, blobs=str(tmp_path / "blobs"), grace=5.0)
        async with Harness(clock_app.app, settings) as harness:
            async with Fleet(settings, "tests.support.clock_app:app", 2):
                for count in (2, 5, 8):
                    await until(lambda count=count: ticked(harness, count), "some ticks")
                    server.kill()
                    await server.wait()
                    await server.start()
                    await server.wait_ready(300)
                await until(lambda: ticked(harness, 12), "some ticks")
            await harness.drain()
            await check_ticks(harness)
    finally:
        await server.stop()
