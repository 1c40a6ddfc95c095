"""What one writes first: fetch one, publish, acknowledge, and wait for each."""

from __future__ import annotations

from benchmarks.contenders import Clock, Drained, Job


async def drain(job: Job) -> Drained:
    import nats

    stream = job.stream
    connection = await nats.connect(job.url)
    jetstream = connection.jetstream()
    subscription = await jetstream.pull_subscribe(f"{stream}.in", durable="work", stream=stream)
    clock = Clock()
    for _ in range(job.messages):
        (message,) = await subscription.fetch(1)
        identity = f"{stream}:{message.metadata.sequence.stream}"
        await jetstream.publish(f"{stream}.out", message.data, headers={"Nats-Msg-Id": identity})
        await message.ack_sync()
    drained = clock.read(job.messages)
    await connection.close()
    return drained
