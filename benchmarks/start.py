"""start: from the command to the first message handled, and `mqinfer --help`."""

from __future__ import annotations

import asyncio
import sys
import time

from benchmarks import load
from benchmarks.results import Figure, Goal, Options, Result, Row
from mqinfer.adapters.jetstream import JetStream
from mqinfer.settings import Settings

START_SECONDS, HELP_SECONDS = 1.0, 0.3
TIMES = 5


async def measure(options: Options) -> Result:
    """Start workers, each on a stream with one message waiting; ask for help."""
    times = max(options.repeat, options.amount(TIMES, least=1))
    starts, helps, bares = [], [], []
    async with load.servers(options.folder / "stack") as (settings, jetstream):
        for repetition in range(times):
            bares.append(await _command("-c", "pass"))
            helps.append(await _command("-m", "mqinfer", "--help"))
            starts.append(await _start(options, settings, jetstream, f"start-{repetition}"))
    options.say(f"{starts[-1]:.2f} s to the first message, {helps[-1]:.2f} s for help")
    rows = [
        Row("mqinfer worker, to its first output stored", {"seconds": Figure(tuple(starts), "s")}),
        Row("mqinfer --help", {"seconds": Figure(tuple(helps), "s")}),
        Row("python -c pass", {"seconds": Figure(tuple(bares), "s")}),
    ]
    return Result(
        "start",
        f"a process of its own each time, {times} times",
        rows,
        goals=[
            Goal(
                "s from command to first message",
                rows[0].figures["seconds"].median,
                START_SECONDS,
                at_most=True,
            ),
            Goal("s for --help", rows[1].figures["seconds"].median, HELP_SECONDS, at_most=True),
        ],
        notes=[
            "The first message counts as handled when the worker acknowledges it, which it does "
            "when JetStream has stored its output. Streams and consumers are made in that time."
        ],
    )


async def _command(*arguments: str) -> float:
    """Seconds that a run of Python takes."""
    began = time.perf_counter()
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=load.ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(60):
        code = await child.wait()
    seconds = time.perf_counter() - began
    if code:
        raise RuntimeError(f"python {' '.join(arguments)}: exit code {code}")
    return seconds


async def _start(options: Options, settings: Settings, jetstream: JetStream, app: str) -> float:
    await load.create(jetstream, app)
    await load.fill(jetstream, f"{app}.in", load.items(0, 1))
    await load.expect(jetstream, app, f"{app}.in", 1)
    done: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def acknowledged(*_: object) -> None:
        if not done.done():
            done.set_result(time.perf_counter())

    subscription = await jetstream.client.subscribe_direct(f"$JS.ACK.{app}.work.>", acknowledged)
    await jetstream.flush()
    began = time.perf_counter()
    async with load.process(
        options.folder / f"{app}.log",
        *("mqinfer", "worker", "benchmarks.apps:echo"),
        environ=load.environ(settings, app),
    ):
        async with asyncio.timeout(60):
            seconds = await done - began
    await jetstream.client.unsubscribe_direct(subscription)
    await load.expect(jetstream, app, f"{app}.out", 1)
    await load.drop(jetstream, app)
    return seconds
