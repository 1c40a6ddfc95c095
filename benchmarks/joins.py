"""joins: roots a second with twenty parts each, with a join of the answers and without one.

One worker process does all of it: the stages, the tracking, and the join. What a join costs is the
difference: a record for each message that was handled, and one message for each root.
"""

from __future__ import annotations

import asyncio

from benchmarks import load
from benchmarks.results import Figure, Options, Result, Row
from mqinfer.adapters.jetstream import JetStream
from mqinfer.settings import Settings

ROOTS = 2_000
FAN_OUT = 20


async def measure(options: Options) -> Result:
    """Both, in turns."""
    roots = options.amount(ROOTS)
    found: dict[str, list[float]] = {"parts": [], "joined": []}
    memory: dict[str, list[float]] = {"parts": [], "joined": []}
    async with load.servers(options.folder / "stack") as (settings, jetstream):
        for repetition in range(options.repeat):
            for name, rates in found.items():
                seconds, size = await _drain(
                    options, settings, jetstream, f"{name}-{repetition}", name, roots
                )
                rates.append(roots / seconds)
                memory[name].append(size)
            told = ", ".join(f"{name} {rates[-1]:,.0f}" for name, rates in found.items())
            options.say(f"{told} roots/s")
    names = {"parts": "without a join", "joined": "with a join"}
    rows = [
        Row(
            names[name],
            {
                "roots/s": Figure(tuple(rates), "roots/s"),
                "worker, MB": Figure(tuple(memory[name]), "MB"),
            },
        )
        for name, rates in found.items()
    ]
    return Result(
        "joins",
        f"{roots:,} roots with {FAN_OUT} parts each, an answer to each part; one worker process",
        rows,
        notes=[
            "A root takes 21 messages through two stages; with a join a record of each, which the "
            "tracker takes in, and a message for the join. All is stored before the message that "
            "led to it is acknowledged."
        ],
        chart="roots/s",
    )


async def _drain(
    options: Options, settings: Settings, jetstream: JetStream, app: str, kind: str, roots: int
) -> tuple[float, float]:
    """Seconds from the first root's delivery to the end of the last, and the worker's megabytes."""
    await load.create(jetstream, app)
    await load.fill(jetstream, f"{app}.in", load.items(0, roots))
    await load.expect(jetstream, app, f"{app}.in", roots)
    last, count = ("whole", roots) if kind == "joined" else ("work", roots * FAN_OUT)
    async with load.process(
        options.folder / f"{app}.log",
        *("mqinfer", "worker", f"benchmarks.apps:{kind}"),
        environ=load.environ(settings, app),
    ) as worker:
        (began, _, _), (_, ended, _) = await asyncio.gather(
            load.drained(jetstream, app, "cut", done=roots, process=worker),
            load.drained(jetstream, app, last, done=count, process=worker),
        )
        size = worker.memory()[1]
    wanted = f"{app}.whole" if kind == "joined" else f"{app}.out"
    await load.expect(jetstream, app, wanted, count)
    await load.drop(jetstream, app)
    return ended - began, size
