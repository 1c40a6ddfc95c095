"""latency: from the scheduled publish to the output acknowledged, in an open loop."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from math import nan

import msgspec

from benchmarks import load
from benchmarks.contenders import Job
from benchmarks.openloop import SIZE, Level, Measured, Plan
from benchmarks.results import Figure, Goal, Options, Result, Row
from mqinfer.adapters.jetstream import JetStream
from mqinfer.settings import Settings

SHARES = (0.2, 0.5, 0.8)
SECONDS, LEAD = 4.0, 0.5  # of each level, and before what is counted of it
P99_MS = 5.0
LOOP = "asyncio"  # of all contenders: what `mqinfer worker` takes unless it is told
NOTES = (
    "From the time at which a message was to be sent, to the acknowledgement of the input, which "
    "both send when JetStream has stored the output. The generator sends every millisecond, which "
    "adds half of one on average.",
    "Capacity: of generator, worker and server together on this machine, with 1,024 messages "
    "under way; of each contender its own. What the hand-written loop shows at about the same rate "
    "is what server, generator and machine take.",
)


async def measure(options: Options) -> Result:
    """The contenders in turns: capacity, then a level after the other."""
    contenders = ["FastStream", "hand-written", "mqinfer"]
    notes = list(NOTES)
    if importlib.util.find_spec("faststream") is None:
        contenders.remove("FastStream")
        notes.append("FastStream left out: pip install 'mqinfer[bench]'")
    found: dict[str, list[Measured]] = {name: [] for name in contenders}
    async with load.servers(options.folder / "stack") as (settings, jetstream):
        for repetition in range(options.repeat):
            rates: tuple[float, ...] = ()
            for name in contenders:
                stream = f"latency-{name.lower()}-{repetition}"
                measured = await _contend(options, settings, jetstream, name, stream, rates)
                found[name].append(measured)
                half = measured.levels[1]
                if name == "FastStream":
                    rates = (half.rate,)
                options.say(f"{name}: p99 {half.p99:.2f} ms at {half.rate:,.0f}/s")
    rows = [
        Row(f"{name}, {share:.0%} of {_capacity(measured)}/s", _figures(measured, index))
        for name, measured in reversed(found.items())
        for index, share in enumerate(SHARES)
    ]
    p99 = {name: _figures(measured, 1)["p99"] for name, measured in found.items()}
    own = same_rate = nan
    if "FastStream" in found:
        same = _figures(found["mqinfer"], len(SHARES))
        rows.insert(len(SHARES), Row("mqinfer, at FastStream's 50%", same))
        own = p99["mqinfer"].times(p99["FastStream"])
        same_rate = same["p99"].times(p99["FastStream"])
    return Result(
        "latency",
        f"one stage, messages of {SIZE} B, open loop",
        rows,
        [
            Goal("ms p99 at 50 % of capacity", p99["mqinfer"].median, P99_MS, at_most=True),
            Goal(
                "of the hand-written loop's p99, each at 50 % of its own capacity",
                p99["mqinfer"].times(p99["hand-written"]),
                1.0,
                at_most=True,
            ),
            Goal("of FastStream's p99, at its rate", same_rate, 1.0, at_most=True),
            Goal("of FastStream's p99, each at 50 % of its own capacity", own, 1.0, at_most=True),
        ],
        notes,
        "p99",
    )


def _capacity(measured: Sequence[Measured]) -> str:
    return f"{Figure(tuple(one.capacity for one in measured), '').median:,.0f}"


def _figures(measured: Sequence[Measured], index: int) -> dict[str, Figure]:
    levels: list[Level] = [one.levels[index] for one in measured]
    return {
        "messages/s": Figure(tuple(level.rate for level in levels), "messages/s"),
        "p50": Figure(tuple(level.p50 for level in levels), "ms"),
        "p99": Figure(tuple(level.p99 for level in levels), "ms"),
        "p99.9": Figure(tuple(level.p999 for level in levels), "ms"),
    }


async def _contend(
    options: Options,
    settings: Settings,
    jetstream: JetStream,
    name: str,
    stream: str,
    rates: tuple[float, ...],
) -> Measured:
    """One contender's capacity and levels, those of `rates` last."""
    await load.create(jetstream, stream)
    part = max(0.05, min(1.0, options.scale))
    plan = Plan(settings.nats_url, stream, SECONDS * part, SHARES, rates, LEAD * part)
    log = options.folder / f"{stream}.log"
    arguments = ("benchmarks.openloop", msgspec.json.encode(plan).decode())
    async with (
        _worker(options, settings, name, stream) as worker,
        load.process(log, *arguments) as generator,
        asyncio.timeout(120),
    ):
        await generator.process.wait()
        generator.check()
        worker.check()
    measured = msgspec.json.decode(log.read_bytes().splitlines()[-1], type=Measured)
    await load.expect(jetstream, stream, f"{stream}.out", measured.sent)
    await load.drop(jetstream, stream)
    return measured


def _worker(
    options: Options, settings: Settings, name: str, stream: str
) -> AbstractAsyncContextManager[load.Process]:
    """The process that is measured; rivals are those of stage_loop, given work without end."""
    log = options.folder / f"{stream}-worker.log"
    if name == "mqinfer":
        environ = load.environ(settings, stream) | {"MQINFER_LOOP": LOOP}
        return load.process(log, "mqinfer", "worker", "benchmarks.apps:echo", environ=environ)
    contender = "handwritten" if name == "hand-written" else "faststream"
    job = Job(contender, settings.nats_url, stream, 10**12, SIZE, LOOP)
    return load.process(log, "benchmarks.contenders", msgspec.json.encode(job).decode())
