"""The loops that are compared: consume, handle, publish with an id, acknowledge.

Each is run in a process of its own (`python -m benchmarks.contenders NAME URL STREAM MESSAGES`),
drains a preloaded stream, and prints one line of JSON: seconds from the first pull to the last
acknowledged output, and the processor seconds of the process.

All keep the same promise: the input is acknowledged after the output was, both are on disk, and the
output has a message id made of the input's.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable

import nats
from nats.js.api import AckPolicy, ConsumerConfig

Measured = Callable[[str, str, int], Awaitable[tuple[float, float]]]


class Clock:
    """Wall and processor seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self._wall, time.process_time() - self._cpu


async def handwritten(url: str, stream: str, messages: int) -> tuple[float, float]:
    """The best that nats-py's public API allows: own continuous pull, own reply inbox."""
    connection = await nats.connect(url)
    await connection.jetstream().add_consumer(
        stream,
        ConsumerConfig(
            durable_name="work",
            ack_policy=AckPolicy.EXPLICIT,
            filter_subject=f"{stream}.in",
            max_ack_pending=-1,
        ),
    )
    batch, inbox, acks = 512, connection.new_inbox(), connection.new_inbox()
    next_subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.work"
    body = json.dumps({"batch": batch, "expires": 30_000_000_000}).encode()
    pending: dict[str, str] = {}
    asked = number = done = 0
    finished = asyncio.Event()

    async def ask() -> None:
        nonlocal asked
        asked += batch
        await connection.publish(next_subject, body, reply=inbox)

    async def on_ack(message: nats.aio.msg.Msg) -> None:
        nonlocal done
        await connection.publish(pending.pop(message.subject), b"+ACK")
        done += 1
        if done == messages:
            finished.set()

    async def on_message(message: nats.aio.msg.Msg) -> None:
        nonlocal asked, number
        if not message.reply.startswith("$JS.ACK"):
            return
        asked -= 1
        if asked < batch // 2:
            await ask()
        number += 1
        reply = f"{acks}.{number}"
        pending[reply] = message.reply
        identity = f"{stream}:{message.reply.split('.')[5]}"
        await connection.publish(
            f"{stream}.out", message.data, reply=reply, headers={"Nats-Msg-Id": identity}
        )

    await connection.subscribe(f"{acks}.*", cb=on_ack)
    await connection.subscribe(inbox, cb=on_message)
    clock = Clock()
    await ask()
    await finished.wait()
    result = clock.read()
    await connection.close()
    return result


async def naive(url: str, stream: str, messages: int) -> tuple[float, float]:
    """What one writes first: fetch one, publish, acknowledge, wait for each."""
    connection = await nats.connect(url)
    jetstream = connection.jetstream()
    subscription = await jetstream.pull_subscribe(f"{stream}.in", durable="work", stream=stream)
    clock = Clock()
    for _ in range(messages):
        (message,) = await subscription.fetch(1)
        identity = f"{stream}:{message.metadata.sequence.stream}"
        await jetstream.publish(f"{stream}.out", message.data, headers={"Nats-Msg-Id": identity})
        await message.ack_sync()
    result = clock.read()
    await connection.close()
    return result


async def faststream(url: str, stream: str, messages: int) -> tuple[float, float]:
    """FastStream on JetStream with `PullSub`, acknowledging after the handler."""
    from faststream import AckPolicy as When
    from faststream import FastStream
    from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub
    from pydantic import BaseModel

    class Item(BaseModel):
        n: int
        text: str

    broker = NatsBroker(url, logger=None)
    app = FastStream(broker, logger=None)
    existing = JStream(stream, declare=False)
    done = 0
    finished = asyncio.Event()

    @broker.subscriber(
        f"{stream}.in",
        durable="work",
        stream=existing,
        pull_sub=PullSub(batch_size=100),
        max_workers=100,
        ack_policy=When.NACK_ON_ERROR,
    )
    async def handle(item: Item, message: NatsMessage) -> None:
        nonlocal done
        identity = f"{stream}:{message.raw_message.metadata.sequence.stream}"
        await broker.publish(
            item, f"{stream}.out", stream=stream, headers={"Nats-Msg-Id": identity}
        )
        done += 1
        if done == messages:
            finished.set()

    clock = Clock()
    async with app.broker:
        await app.broker.start()
        await finished.wait()
        return clock.read()


async def mqinfer(url: str, stream: str, messages: int) -> tuple[float, float]:
    """mqinfer: typed decode, identity, lineage, metrics, pulse."""
    from mqinfer import App, Message, Settings, Worker
    from mqinfer.collector import tune_collector
    from mqinfer.testing import until

    tune_collector()  # as `mqinfer worker` does

    app = App(stream)

    class In(Message):
        n: int
        text: str

    class Out(Message):
        n: int
        text: str

    @app.stage
    async def work(item: In) -> Out:
        return Out(item.n, item.text)

    worker = Worker(app, settings=Settings.load({}, nats_url=url))
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run())
        await until(lambda: worker.engine and worker.engine.runners)
        metrics = worker.services.metrics.stage("work")
        clock = Clock()
        await until(lambda: metrics.completed >= messages, timeout=300)
        result = clock.read()
        worker.stop()
    return result


CONTENDERS: dict[str, Measured] = {
    "handwritten": handwritten,
    "naive": naive,
    "faststream": faststream,
    "mqinfer": mqinfer,
}


def main() -> None:
    name, url, stream, messages, loop = sys.argv[1:6]
    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        wall, cpu = runner.run(CONTENDERS[name](url, stream, int(messages)))
    print(json.dumps({"wall": wall, "cpu": cpu}))


if __name__ == "__main__":
    main()
