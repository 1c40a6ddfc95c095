"""The best that nats-py's public API allows: own continuous pull, own inbox for the answers.

It looks into nothing: the bytes that come in go out again. That is the limit.
"""

from __future__ import annotations

import asyncio
import json

from benchmarks.contenders import Clock, Drained, Job

_BATCH = 2048  # 512 is slower, 8192 no faster


async def drain(job: Job) -> Drained:
    import nats
    from nats.aio.msg import Msg
    from nats.js.api import AckPolicy, ConsumerConfig

    stream = job.stream
    connection = await nats.connect(job.url)
    await connection.jetstream().add_consumer(
        stream,
        ConsumerConfig(
            durable_name="work",
            ack_policy=AckPolicy.EXPLICIT,
            filter_subject=f"{stream}.in",
            max_ack_pending=-1,
        ),
    )
    inbox, acks = connection.new_inbox(), connection.new_inbox()
    next_subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.work"
    body = json.dumps({"batch": _BATCH, "expires": 30_000_000_000}).encode()
    pending: dict[str, str] = {}
    asked = number = done = 0
    finished = asyncio.Event()

    async def ask() -> None:
        nonlocal asked
        asked += _BATCH
        await connection.publish(next_subject, body, reply=inbox)

    async def on_ack(message: Msg) -> None:
        nonlocal done
        await connection.publish(pending.pop(message.subject), b"+ACK")
        done += 1
        if done == job.messages:
            finished.set()

    async def on_message(message: Msg) -> None:
        nonlocal asked, number
        if not message.reply.startswith("$JS.ACK"):
            return
        asked -= 1
        if asked < _BATCH // 2:
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
    drained = clock.read(job.messages)
    await connection.close()
    return drained
