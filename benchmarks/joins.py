"""joins: roots a second with twenty parts each, with a join of the answers and without one.

One worker process does all of it: the stages, the tracking, and the join. What a join costs is the
difference: a record for each message that was handled, and one message for each root.
"""

from __future__ import annotations

from benchmarks import load
from benchmarks.results import Figure, Options, Result, Row
from mqinfer.adapters.jetstream import JetStream
from mqinfer.settings import Settings

ROOTS = 2_000
FAN_OUT = 20


async def measure(options: Options) -> Result:
    """Both, in turns."""
    roots = options.amount(ROOTS)
    found: dict[str, list[tuple[float, float, float]]] = {"parts": [], "joined": []}
    async with load.servers(options.folder / "stack") as (settings, jetstream):
        for repetition in range(options.repeat):
            for name, samples in found.items():
                samples.append(
                    await _drain(options, settings, jetstream, f"{name}-{repetition}", name, roots)
                )
            told = ", ".join(f"{name} {samples[-1][0]:,.0f}" for name, samples in found.items())
            options.say(f"{told} roots/s")
    names = {"parts": "without a join", "joined": "with a join"}
    rows = []
    for name, samples in found.items():
        rates, cpu, memory = zip(*samples, strict=True)
        figures = {
            "roots/s": Figure(rates, "roots/s"),
            "worker, ms of a core a root": Figure(cpu, "ms"),
            "worker, MB": Figure(memory, "MB"),
        }
        rows.append(Row(names[name], figures))
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
) -> tuple[float, float, float]:
    """Roots a second, and for each the worker's milliseconds on a core; and its megabytes."""
    await load.create(jetstream, app)
    await load.fill(jetstream, f"{app}.in", load.items(0, roots))
    await load.expect(jetstream, app, f"{app}.in", roots)
    last, count = ("whole", roots) if kind == "joined" else ("work", roots * FAN_OUT)
    async with load.process(
        options.folder / f"{app}.log",
        *("mqinfer", "worker", f"benchmarks.apps:{kind}"),
        environ=load.environ(settings, app),
    ) as worker:
        began, _, _ = await load.drained(jetstream, app, "cut", done=1, process=worker)
        before = worker.cpu()
        _, ended, _ = await load.drained(jetstream, app, last, done=count, process=worker)
        cpu, size = worker.cpu() - before, worker.memory()[1]
    wanted = f"{app}.whole" if kind == "joined" else f"{app}.out"
    await load.expect(jetstream, app, wanted, count)
    await load.drop(jetstream, app)
    return roots / (ended - began), cpu / roots * 1e3, size
