"""ordered: messages a second in order by key, without a state of each key and with one.

One worker process drains what waits in the partitions, beside the same work in no order. After each
the outputs are read: every message once, each key in its order, each counted by its state.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Iterable
from math import nan
from pathlib import Path

import msgspec
from msgspec import Struct

from benchmarks import apps, load
from benchmarks.results import Figure, Goal, Options, Result, Row
from mqinfer import App, plan
from mqinfer.adapters.jetstream import JetStream
from mqinfer.adapters.scan import Scanner
from mqinfer.settings import Settings
from mqinfer.stack import NatsServer
from mqinfer.testing import until

MESSAGES = 30_000
SIZE = 180  # bytes of text; a payload has about 200
KEYS, HOT = 1_000, 8
ORDERED, STATE = 20_000, 10_000  # messages a second
LOOK = 0.02  # seconds between looks
BEGUN = 0.1  # of the outputs: what comes before is the start
LIMIT = 120.0  # seconds for one measurement


class Case(Struct, frozen=True):
    """One row: its name, the app in `benchmarks.apps`, and over how many keys its messages go."""

    name: str
    app: str
    keys: int = 0


PLAIN = Case("in no order", "echo")
IN_ORDER = Case(f"in order, {KEYS:,} keys", "ordered", KEYS)
REMEMBERING = Case(f"with state, {KEYS:,} keys", "remembering", KEYS)
HOT_KEYS = Case(f"with state, {HOT} keys", "remembering", HOT)
CASES = (PLAIN, IN_ORDER, REMEMBERING, HOT_KEYS)


class Drained(Struct, frozen=True):
    """What one measurement found: messages a second, microseconds of processor, megabytes."""

    rate: float
    worker: float
    server: float
    memory: float


async def measure(options: Options) -> Result:
    """Every case, in turns."""
    count = options.amount(MESSAGES)
    found: dict[str, list[Drained]] = {case.name: [] for case in CASES}
    server = NatsServer(options.folder / "nats", log=options.folder / "nats.log")
    await server.start()
    try:
        await server.wait_ready(60)
        settings = Settings.load({}, nats_url=server.url, blobs=str(options.folder / "blobs"))
        async with JetStream(settings, name="bench") as jetstream:
            for repetition in range(options.repeat):
                for number, case in enumerate(CASES):
                    drained = await _drain(
                        options, settings, jetstream, server, f"o{number}-{repetition}", case, count
                    )
                    found[case.name].append(drained)
                    options.say(f"{case.name}: {drained.rate:,.0f}/s")
    finally:
        await server.stop()
    rows = [
        Row(
            name,
            {
                "messages/s": Figure(tuple(one.rate for one in all_), "messages/s"),
                "worker µs": Figure(tuple(one.worker for one in all_), "µs"),
                "server µs": Figure(tuple(one.server for one in all_), "µs"),
                "worker, MB": Figure(tuple(one.memory for one in all_), "MB"),
            },
        )
        for name, all_ in found.items()
    ]
    rates = {row.name: row.figures["messages/s"] for row in rows}
    return Result(
        "ordered",
        f"{count:,} x 200 B in order by key, 8 partitions, one worker process",
        rows,
        [
            Goal("in order, messages/s", rates[IN_ORDER.name].median or nan, ORDERED),
            Goal("with state, messages/s", rates[REMEMBERING.name].median or nan, STATE),
        ],
        [
            "All waits in the partitions before the worker starts, and the outputs count from the "
            "first tenth on. Microseconds are of processor time a message. A state is 9 B.",
        ],
        chart="messages/s",
    )


async def _drain(
    options: Options,
    settings: Settings,
    jetstream: JetStream,
    server: NatsServer,
    name: str,
    case: Case,
    count: int,
) -> Drained:
    """One worker drains one stream."""
    await load.create(jetstream, name)
    await _fill(jetstream, name, case, count)
    async with load.process(
        options.folder / f"{name}.log",
        *("mqinfer", "worker", f"benchmarks.apps:{case.app}"),
        environ=load.environ(settings, name),
    ) as worker:
        begun, began, processor = 0, 0.0, (0.0, 0.0)
        async with asyncio.timeout(LIMIT):
            while True:
                outputs = await _stored(jetstream, name) - count
                now = time.perf_counter(), (worker.cpu(), _cpu(server))
                if outputs >= BEGUN * count and not begun:
                    begun, (began, processor) = outputs, now
                if outputs >= count:
                    break
                worker.check()
                await asyncio.sleep(LOOK)
        memory = worker.memory()[1]
    done = max(1, count - begun)
    ended, used = now
    await _check(jetstream, name, case, count)
    await load.drop(jetstream, name)
    if case.keys:
        await load.drop(jetstream, plan.copy_spec(App(name), apps.Keyed).name)
    return Drained(
        done / max(ended - began, 1e-9),
        1e6 * (used[0] - processor[0]) / done,
        1e6 * (used[1] - processor[1]) / done,
        memory,
    )


async def _fill(jetstream: JetStream, name: str, case: Case, count: int) -> None:
    """Fill the stream, and where there is an order the partitions."""
    if not case.keys:
        await load.fill(jetstream, f"{name}.in", load.items(0, count, SIZE))
        return await load.expect(jetstream, name, f"{name}.in", count)
    copy = plan.copy_spec(apps.keyed_of(name, state=False), apps.Keyed)
    await jetstream.ensure_stream(copy)
    jetstream.client.write(b"".join(_keyed(name, case.keys, count)))
    await jetstream.flush()

    async def copied() -> bool:
        return await _stored(jetstream, copy.name) >= count

    await until(copied, "the copies", timeout=LIMIT)
    return None


def _keyed(name: str, keys: int, count: int) -> Iterable[bytes]:
    """Publishes of `apps.Keyed`."""
    text = "x" * SIZE
    for n in range(count):
        payload = b'{"k":%d,"n":%d,"text":"%b"}' % (n % keys, n, text.encode())
        yield b"PUB %b.keyed.%d %d\r\n%b\r\n" % (name.encode(), n % keys, len(payload), payload)


async def _stored(jetstream: JetStream, stream: str) -> int:
    info = await jetstream.stream_info(stream)
    return 0 if info is None else int(info["state"]["messages"])


def _cpu(server: NatsServer) -> float:
    """The processor seconds that the server has used."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _check(jetstream: JetStream, name: str, case: Case, count: int) -> None:
    """Every message has one output, each key in its order.

    Raises:
        RuntimeError: it has not.
    """
    outputs = [
        msgspec.json.decode(stored.data)
        async for stored in Scanner(jetstream.client).messages(name, f"{name}.out")
    ]
    if sorted(one["n"] for one in outputs) != list(range(count)):
        raise RuntimeError(f"{case.name}: not one output for each message")
    if not case.keys:
        return
    of: dict[int, list[dict[str, int]]] = defaultdict(list)
    for one in outputs:
        of[one["n"] % case.keys].append(one)
    for key, found in of.items():
        numbers = [one["n"] for one in found]
        counts = [one["count"] for one in found]
        right = list(range(1, len(found) + 1)) if "state" in case.name else [0] * len(found)
        if numbers != sorted(numbers) or counts != right:
            raise RuntimeError(f"{case.name}: key {key} came in another order")
