"""taskiq on JetStream: `PullBasedJetStreamBroker`, 100 tasks at a time, acknowledged when done.

Run by `run_receiver_task`, which is what its worker command runs in each process, with the
command's own defaults.
"""

# Without `from __future__ import annotations`: taskiq reads those of the task.
import asyncio
import contextlib
import json

from benchmarks.contenders import Clock, Drained, Job, text


def payload(number: int, size: int) -> bytes:
    """A message in taskiq's envelope."""
    return json.dumps(
        {
            "task_id": f"in-{number}",
            "task_name": "work",
            "labels": {},
            "args": [],
            "kwargs": {"item": {"n": number, "text": text(number, size)}},
        }
    ).encode()


async def drain(job: Job) -> Drained:
    from nats.js.api import ConsumerConfig, StreamConfig
    from pydantic import BaseModel
    from taskiq.api import run_receiver_task
    from taskiq_nats import PullBasedJetStreamBroker

    class Item(BaseModel):
        n: int
        text: str

    stream = job.stream

    def broker_of(subject: str, durable: str) -> PullBasedJetStreamBroker:
        return PullBasedJetStreamBroker(
            [job.url],
            subject=subject,
            stream_name=stream,
            durable=durable,
            stream_config=StreamConfig(name=stream, subjects=[f"{stream}.>"]),
            consumer_config=ConsumerConfig(durable_name=durable, filter_subject=subject),
            pull_consume_batch=100,
        )

    incoming, outgoing = broker_of(f"{stream}.in", "work"), broker_of(f"{stream}.out", "store")
    done = 0
    finished = asyncio.Event()

    @outgoing.task(task_name="store")
    async def store(item: Item) -> None:
        """Named by the outputs; nobody runs it here."""

    @incoming.task(task_name="work")
    async def work(item: Item) -> None:
        nonlocal done
        # Labels become the headers of the message.
        identity = {"Nats-Msg-Id": f"out-{item.n}"}
        await store.kicker().with_task_id(f"out-{item.n}").with_labels(**identity).kiq(item)
        done += 1
        if done == job.messages:
            finished.set()

    await outgoing.startup()
    await incoming.startup()
    clock = Clock()
    receiver = asyncio.create_task(run_receiver_task(incoming))
    try:
        await finished.wait()
        return clock.read(job.messages)
    finally:
        receiver.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await receiver
        await incoming.shutdown()
        await outgoing.shutdown()
