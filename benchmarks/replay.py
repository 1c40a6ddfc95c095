"""replay: messages through a stage again, beside the live drain of the same messages.

The stage gives nothing back, so that what is measured is the way in. The limit is a consumer on
nats-py that begins at a sequence, asks for no acknowledgements and throws away what it gets.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from benchmarks import apps, load
from benchmarks.results import Figure, Options, Result, Row
from mqinfer import wiring
from mqinfer.adapters.jetstream import JetStream
from mqinfer.replay.runs import Wanted
from mqinfer.settings import Settings

MESSAGES = 50_000


async def measure(options: Options) -> Result:
    """Drain the same messages in three ways, in turns."""
    messages = options.amount(MESSAGES)
    found: dict[str, list[float]] = {"raw": [], "live": [], "replay": []}
    async with load.servers(options.folder / "stack") as (settings, jetstream):
        for repetition in range(options.repeat):
            app = f"replay-{repetition}"
            await load.create(jetstream, app)
            await load.fill(jetstream, f"{app}.in", load.items(0, messages))
            await load.expect(jetstream, app, f"{app}.in", messages)
            found["raw"].append(messages / await _raw(options, settings, app, messages))
            found["live"].append(
                messages / await _live(options, settings, jetstream, app, messages)
            )
            seconds = await _replay(options, settings, jetstream, app, messages)
            found["replay"].append(messages / seconds)
            rates = ", ".join(f"{name} {rates[-1]:,.0f}" for name, rates in found.items())
            options.say(f"{rates} messages/s")
            await load.drop(jetstream, app)
    names = {
        "raw": "nats-py, from a sequence, no acknowledgements",
        "live": "mqinfer worker, live",
        "replay": "mqinfer worker --run",
    }
    rows = [
        Row(names[key], {"messages/s": Figure(tuple(rates), "messages/s")})
        for key, rates in found.items()
    ]
    return Result(
        "replay",
        f"{messages:,} messages of 200 B through a stage without outputs",
        rows,
        notes=[
            "The worker decodes, calls the handler and acknowledges each message, live and in a "
            "replay alike; the raw consumer does none of it."
        ],
        chart="messages/s",
    )


async def _raw(options: Options, settings: Settings, app: str, messages: int) -> float:
    """Seconds of the consumer on nats-py, by its own clock, in a process of its own."""
    log = options.folder / f"{app}-raw.log"
    arguments = ("benchmarks.replay", settings.nats_url, app, str(messages))
    async with load.process(log, *arguments) as raw, asyncio.timeout(300):
        await raw.process.wait()
    seconds: float = json.loads(log.read_text().splitlines()[-1])
    return seconds


async def _live(
    options: Options, settings: Settings, jetstream: JetStream, app: str, messages: int
) -> float:
    async with load.process(
        options.folder / f"{app}-live.log",
        *("mqinfer", "worker", "benchmarks.apps:swallow"),
        environ=load.environ(settings, app),
    ):
        began, ended, _ = await load.drained(jetstream, app, "work", done=messages)
    await _nothing_left(jetstream, app, "work")
    return ended - began


async def _replay(
    options: Options, settings: Settings, jetstream: JetStream, app: str, messages: int
) -> float:
    runs = wiring.runs(apps.swallow_of(app), jetstream)
    run = await runs.create(stage="work", wanted=Wanted(from_seq=1), name="again")
    if run.total != messages:
        raise RuntimeError(f"the run has {run.total:,} messages instead of {messages:,}")
    consumer = f"run-{run.name}-work"
    async with load.process(
        options.folder / f"{app}-run.log",
        *("mqinfer", "worker", "benchmarks.apps:swallow", "--run", run.name),
        environ=load.environ(settings, app),
    ) as worker:
        began, ended, _ = await load.drained(jetstream, app, consumer, done=messages)
        async with asyncio.timeout(60):  # it ends by itself when the run is done
            await worker.process.wait()
    await _nothing_left(jetstream, app, consumer)
    if (await runs.get(run.name)).state != "done":
        raise RuntimeError("the run is not done")
    return ended - began


async def _nothing_left(jetstream: JetStream, app: str, consumer: str) -> None:
    state = await jetstream.consumer_state(app, consumer)
    if state is None or state.lag or state.redelivered:
        raise RuntimeError(f"{app}: {consumer} was not drained once: {state}")
    dead = await jetstream.stream_info(f"{app}-dead")
    if dead is not None and dead["state"]["messages"]:
        raise RuntimeError(f"{app}: there are dead letters")


# --- the raw consumer, in a process of its own --------------------------------------------------


async def drain_raw(url: str, stream: str, messages: int) -> float:
    """Seconds from the first request to the last message; each comes once, in order."""
    import nats
    from nats.aio.msg import Msg
    from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

    connection = await nats.connect(url)
    inbox = connection.new_inbox()
    finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    count = 0

    async def on_message(message: Msg) -> None:
        nonlocal count
        count += 1
        if count == messages:
            # The last token but two of the reply is the sequence that the consumer counts.
            if int(message.reply.split(".")[6]) == messages:
                finished.set_result(None)
            else:
                finished.set_exception(RuntimeError(f"repeats or gaps: {message.reply}"))

    # A push consumer without acknowledgements; pending limits off, or nats-py drops messages.
    await connection.subscribe(inbox, cb=on_message, pending_msgs_limit=-1, pending_bytes_limit=-1)
    began = time.perf_counter()
    await connection.jetstream().add_consumer(
        stream,
        ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=1,
            ack_policy=AckPolicy.NONE,
            deliver_subject=inbox,
            filter_subject=f"{stream}.in",
        ),
    )
    async with asyncio.timeout(300):
        await finished
    seconds = time.perf_counter() - began
    await connection.close()
    return seconds


if __name__ == "__main__":
    print(json.dumps(asyncio.run(drain_raw(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
