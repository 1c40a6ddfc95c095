"""scale: processes, replicas, and backlogs of ten thousand to five million messages.

A stream is filled further and further, and at each size a worker drains a stretch of it that is the
same for all: what is measured is whether the rest that waits makes a difference.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from msgspec import Struct, field

from benchmarks import load
from benchmarks.results import Figure, Goal, Options, Result, Row
from mqinfer.adapters.admin import JetStreamError
from mqinfer.adapters.jetstream import JetStream
from mqinfer.errors import Unavailable
from mqinfer.settings import Settings
from mqinfer.stack import NatsServer
from mqinfer.stack.ports import free_port
from mqinfer.testing import until

WINDOW = 50_000
SINGLE = (10_000, 100_000, 1_000_000, 5_000_000)
CLUSTER = (10_000, 100_000)
OF_SMALLEST, FLAT_MB = 0.8, 20.0
_CLUSTER = """
cluster {{
  name: bench
  listen: "127.0.0.1:{port}"
  routes: [{routes}]
}}
"""


class Cell(Struct):
    """What was measured at one backlog with some processes: a second, and MB at most."""

    rates: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)


Cells = dict[tuple[int, int, int], Cell]  # by replicas, processes and backlog


async def measure(options: Options) -> Result:
    """One server with all sizes, then a cluster of three with the small ones."""
    cells: Cells = {}
    single = load.servers(options.folder / "single")
    async with single as (settings, jetstream):
        await _sizes(options, settings, jetstream, 1, scaled(options, SINGLE), cells)
    async with cluster(options.folder / "cluster") as (settings, jetstream):
        await _sizes(options, settings, jetstream, 3, scaled(options, CLUSTER), cells)
    rows = [
        Row(
            f"R{replicas}, {processes} process{'es' if processes > 1 else ''}, {backlog:,} waiting",
            {
                "messages/s": Figure(tuple(cell.rates), "messages/s"),
                "memory of a worker": Figure(tuple(cell.memory), "MB"),
            },
        )
        for (replicas, processes, backlog), cell in sorted(cells.items())
    ]
    alone = [cell for key, cell in sorted(cells.items()) if key[:2] == (1, 1)]
    memory = [Figure(tuple(cell.memory), "MB").median for cell in alone]
    first, last = (Figure(tuple(cell.rates), "") for cell in (alone[0], alone[-1]))
    return Result(
        "scale",
        f"a window of up to {options.amount(WINDOW):,} messages of 200 B at each backlog",
        rows,
        [
            Goal("MB between backlogs, one worker", max(memory) - min(memory), FLAT_MB, True),
            Goal("of the rate at the smallest backlog", last.times(first), OF_SMALLEST),
        ],
        [
            "From a tenth of the window acknowledged to its end. Each message is answered with one "
            "of its size. Memory: the most a worker had "
            "resident; of two, the larger.",
            "A backlog that is smaller than the window is drained to its end.",
        ],
    )


def scaled(options: Options, sizes: tuple[int, ...]) -> list[int]:
    """The backlogs at the scale of the options, each once."""
    return sorted({options.amount(size) for size in sizes})


async def _sizes(
    options: Options,
    settings: Settings,
    jetstream: JetStream,
    replicas: int,
    backlogs: list[int],
    cells: Cells,
) -> None:
    """Measure 1 and 2 processes, in turns, at each backlog of a stream that only grows."""
    app = f"scale-r{replicas}"
    await until(lambda: _created(jetstream, app, replicas), "a cluster with a leader", 90)
    published = done = 0
    for backlog in backlogs:
        window = min(options.amount(WINDOW), backlog)
        for _ in range(options.repeat):
            for processes in (1, 2):
                more = backlog - (published - done)
                if more > 0:
                    options.say(f"R{replicas}: {backlog:,} messages waiting")
                    await load.fill(jetstream, f"{app}.in", load.items(published, more))
                    published += more
                    await load.expect(jetstream, app, f"{app}.in", published)
                cell = cells.setdefault((replicas, processes, backlog), Cell())
                log = options.folder / f"{app}.log"
                done = await _window(
                    settings,
                    jetstream,
                    log,
                    app,
                    replicas,
                    processes,
                    done,
                    published,
                    window,
                    cell,
                )
    await load.drop(jetstream, app)


async def _created(jetstream: JetStream, stream: str, replicas: int) -> bool:
    """Create a stream; False while a cluster that has just started has no leader or no peers."""
    if not await jetstream.client.answered("$JS.API.INFO", b"", timeout=1.0):
        return False
    try:
        await load.create(jetstream, stream, replicas=replicas)
    except (Unavailable, JetStreamError):
        return False
    return True


async def _window(
    settings: Settings,
    jetstream: JetStream,
    log: Path,
    app: str,
    replicas: int,
    processes: int,
    done: int,
    published: int,
    window: int,
    cell: Cell,
) -> int:
    """Drain a window; how many messages are done when the workers have stopped."""
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(
                load.process(
                    log,
                    *("mqinfer", "worker", "benchmarks.apps:echo"),
                    environ=load.environ(settings, app, replicas),
                )
            )
            for _ in range(processes)
        ]
        began, ended, drained = await load.drained(
            *(jetstream, app, "work"),
            begun=done + window // 10,  # by then all processes are there
            done=done + window,
            total=published,
            process=workers[0],
        )
        cell.rates.append(drained / (ended - began))
        cell.memory.append(max(worker.memory()[1] for worker in workers))
    # What they had begun they have finished, and given back the rest.
    state = await jetstream.consumer_state(app, "work")
    if state is None:
        raise RuntimeError(f"{app}: its consumer is gone")
    await load.expect(jetstream, app, f"{app}.out", published - state.lag)
    return published - state.lag


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[tuple[Settings, JetStream]]:
    """Three NATS servers that know one another, and a connection to them."""
    ports = [free_port() for _ in range(3)]
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
    servers = [
        NatsServer(
            folder / f"nats-{number}",
            log=folder / f"nats-{number}.log",
            server_name=f"n{number}",
            extra_config=_CLUSTER.format(port=port, routes=routes),
        )
        for number, port in enumerate(ports)
    ]
    try:
        await asyncio.gather(*(server.start() for server in servers))
        await asyncio.gather(*(server.wait_ready(60) for server in servers))
        settings = Settings.load({}, nats_url=",".join(server.url for server in servers))
        async with JetStream(settings, name="bench") as jetstream:
            yield settings, jetstream
    finally:
        await asyncio.gather(*(server.stop() for server in servers))
