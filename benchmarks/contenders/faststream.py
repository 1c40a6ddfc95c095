"""FastStream on JetStream: `PullSub(100)`, 100 workers, acknowledged after the handler."""

# Without `from __future__ import annotations`: FastStream reads those of the handler.
import asyncio

from benchmarks.contenders import Clock, Drained, Job


async def drain(job: Job) -> Drained:
    from faststream import AckPolicy
    from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub
    from pydantic import BaseModel

    class Item(BaseModel):
        n: int
        text: str

    stream = job.stream
    broker = NatsBroker(job.url, logger=None)
    done = 0
    finished = asyncio.Event()

    @broker.subscriber(
        f"{stream}.in",
        durable="work",
        stream=JStream(stream, declare=False),
        pull_sub=PullSub(batch_size=100),
        max_workers=100,
        ack_policy=AckPolicy.NACK_ON_ERROR,
    )
    async def handle(item: Item, message: NatsMessage) -> None:
        nonlocal done
        identity = f"{stream}:{message.raw_message.metadata.sequence.stream}"
        await broker.publish(
            item, f"{stream}.out", stream=stream, headers={"Nats-Msg-Id": identity}
        )
        done += 1
        if done == job.messages:
            finished.set()

    clock = Clock()
    async with broker:
        await broker.start()
        await finished.wait()
        return clock.read(job.messages)
