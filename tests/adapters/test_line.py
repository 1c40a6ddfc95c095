"""The second connection: what the server confirms counts as renewed, and nothing else."""

from __future__ import annotations

import asyncio

from mqinfer.adapters.jetstream import JetStream
from mqinfer.ports import ConsumerSpec, Delivery
from mqinfer.settings import Settings
from mqinfer.testing import Harness
from tests.support.blocking_app import Task, app


async def test_what_the_server_confirms_is_renewed_and_what_was_not_sent_is_known(
    nats: Settings,
) -> None:
    arrived: asyncio.Queue[Delivery] = asyncio.Queue()

    async def nothing() -> None: ...

    async with Harness(app, nats) as harness:
        broker = harness.services.broker
        assert isinstance(broker, JetStream)
        await broker.ensure_consumer(ConsumerSpec("c", app.name, (app.subject(Task),)))
        pull = await broker.pull(
            app.name,
            "c",
            on_message=arrived.put_nowait,
            on_released=lambda _messages, _size: None,
            recreate=nothing,
        )
        pull.request(10, 1 << 20)
        await harness.publish(Task(1), Task(2))
        async with asyncio.timeout(120):
            first, second = await arrived.get(), await arrived.get()
        nobodys = first.reply.replace(b".c.", b".gone.")
        async with broker.line() as line:
            both = {first.reply, second.reply}
            assert await line.renew(both, 20.0) == both
            assert await line.renew([nobodys, first.reply], 20.0) == {first.reply}
            assert await line.renew([nobodys], 20.0) == set()
        assert broker.unsent() == []
        broker.ack(first)
        broker.nak(second, 5.0)
        assert broker.unsent() == [first.reply, second.reply]
        await broker.flush()
        assert broker.unsent() == []
        await pull.close()
