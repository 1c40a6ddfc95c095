"""timers: how quickly they are set, what 100,000 that wait cost the server, and how late they come.

Each is set under a name of its own, as a handler or a client does it, side by side. All are due in
one moment, the worst case; a few others, before that, one after the other.
"""

from __future__ import annotations

import asyncio
import datetime
import time
from pathlib import Path
from statistics import median

from benchmarks.results import Figure, Options, Result, Row
from mqinfer import App, Message, plan, wiring
from mqinfer.adapters.jetstream import JetStream
from mqinfer.adapters.scan import Scanner
from mqinfer.later import Later
from mqinfer.settings import Settings
from mqinfer.stack import NatsServer
from mqinfer.streams import Stored
from mqinfer.timers import places
from mqinfer.timers.asked import set_timer

TIMERS = 100_000
SPREAD = 2_000  # that are due one after the other, in so many milliseconds each
EACH = 5
BESIDE = 1_000
PAYLOAD = b"x" * 200


class Due(Message, key="number"):
    """What comes."""

    number: int


app = App("timers")


@app.stage(later=Due)
async def read(due: Due) -> None:
    """Nothing: what is measured is the way here."""


async def measure(options: Options) -> Result:
    """Set them, look at the server, and wait for the last."""
    count, spread = options.amount(TIMERS), options.amount(SPREAD, least=20)
    server = NatsServer(options.folder / "nats", log=options.folder / "nats.log")
    await server.start()
    try:
        await server.wait_ready(60)
        settings = Settings.load({}, nats_url=server.url, blobs=str(options.folder / "blobs"))
        async with JetStream(settings, name="bench") as jetstream:
            await wiring.timetable(app, jetstream).ensure(plan.timers_spec(app))
            await jetstream.ensure_stream(plan.stream_spec(app))
            late = await _spread(jetstream, spread)
            options.say(f"{median(late):.0f} ms late, one after the other")
            pid = server.pid
            assert pid is not None
            before = _resident(pid)
            began = time.time()
            due = began + count / 3_000 + 5
            await _set(jetstream, [(spread + number, due) for number in range(count)])
            took = time.time() - began
            grown = _resident(pid) - before
            options.say(f"{count / took:,.0f} set a second, {grown:.0f} MB")
            if time.time() > due:
                raise RuntimeError("the time came before all were set")
            come = await _come(jetstream, spread + count)
            last = max(one.time.timestamp() for one in come) - due
            options.say(f"the last came {last:.1f} s late")
    finally:
        await server.stop()
    if len({one.headers["Mq-Id"] for one in come}) != len(come):
        raise RuntimeError("one came twice")
    if min(_late(one) for one in come) < 0:
        raise RuntimeError("one came early")
    return Result(
        "timers",
        f"{count:,} timers of {len(PAYLOAD)} B that wait, all due at once",
        [
            Row(
                "mqinfer",
                {
                    "set/s": Figure((count / took,), "timers/s"),
                    "server's memory": Figure((grown,), "MB"),
                    "come/s": Figure((count / max(last, 0.001),), "timers/s"),
                    "late, the last": Figure((last,), "s"),
                    "late alone, median": Figure((median(late),), "ms"),
                    "late alone, most": Figure((max(late),), "ms"),
                },
            )
        ],
        notes=[
            f"Once, whatever --repeat says. Alone: {spread:,} that are due {EACH} ms apart. None "
            "came early, none twice."
        ],
    )


async def _set(jetstream: JetStream, wanted: list[tuple[int, float]]) -> None:
    """Set timers by number and time, side by side."""
    table, beside = wiring.timetable(app, jetstream), asyncio.Semaphore(BESIDE)

    async def one(number: int, due: float) -> None:
        async with beside:
            await set_timer(
                table,
                app.name,
                Later(None, due, name="due", key=str(number)),
                f"{app.subject(Due)}.{number}",
                PAYLOAD,
                identity=f"due-{number}",
                content_type="application/json",
            )

    await asyncio.gather(*(one(number, due) for number, due in wanted))


async def _spread(jetstream: JetStream, count: int) -> list[float]:
    """Milliseconds that each is late, of timers that are due one after the other."""
    start = time.time() + 3
    await _set(jetstream, [(n, start + n * EACH / 1000) for n in range(count)])
    return [_late(one) * 1000 for one in await _come(jetstream, count)]


async def _come(jetstream: JetStream, count: int) -> list[Stored]:
    """What has come, once there are so many."""
    scanner = Scanner(jetstream.client)
    async with asyncio.timeout(600):
        while True:
            info = await scanner.stream_info(app.name)
            if info is not None and info["state"]["messages"] >= count:
                break
            await asyncio.sleep(0.2)
    return [one async for one in scanner.messages(app.name)]


def _late(stored: Stored) -> float:
    due = datetime.datetime.fromisoformat(stored.headers[places.DUE])
    return (stored.time - due).total_seconds()


def _resident(pid: int) -> float:
    """What a process has in memory, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0
