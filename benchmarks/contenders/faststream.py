"""FastStream on JetStream: `PullSub(100)`, typed by pydantic, acknowledged after the handler.

What was tried and is not here as it is slower: 10 and 100 workers, its msgspec serializer, and the
message as a second parameter, for the sake of which each call crosses into a thread several times.
"""

# Without `from __future__ import annotations`: FastStream reads those of the handler.
import asyncio

from benchmarks.contenders import Clock, Drained, Job


async def drain(job: Job) -> Drained:
    from faststream import AckPolicy
    from faststream.nats import JStream, NatsBroker, PullSub
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
        no_reply=True,
        ack_policy=AckPolicy.NACK_ON_ERROR,
    )
    async def handle(item: Item) -> None:
        nonlocal done
        identity = {"Nats-Msg-Id": f"out-{item.n}"}
        await broker.publish(item, f"{stream}.out", stream=stream, headers=identity)
        done += 1
        if done == job.messages:
            finished.set()

    clock = Clock()
    async with broker:
        await broker.start()
        await finished.wait()
        return clock.read(job.messages)
