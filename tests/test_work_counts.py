"""A guard against slowing down that counts work, not time: writes, tasks, acknowledgements."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from mqinfer import App, Message
from mqinfer.adapters.jetstream import JetStream
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until

MESSAGES = 1000


class Number(Message):
    value: int


class Double(Message):
    value: int


async def test_a_thousand_messages_cost_few_writes_and_no_tasks(nats: Settings) -> None:
    app = App("counts")

    @app.stage(concurrency=32)
    async def double(number: Number) -> Double:
        return Double(2 * number.value)

    created = 0

    def counting(
        loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        nonlocal created
        created += 1
        return asyncio.Task(coroutine, loop=loop, **options)

    async with Harness(app, nats) as harness:
        await harness.publish(*(Number(value) for value in range(MESSAGES)))
        loop = asyncio.get_running_loop()
        loop.set_task_factory(counting)
        try:
            async with harness.worker() as worker:
                await _lag_is_zero(harness)
                broker = worker.services.broker
                assert isinstance(broker, JetStream)
                writes, resent = broker.client.socket_writes, broker.publisher.resent
                duplicates = broker.publisher.duplicates
        finally:
            loop.set_task_factory(None)
        assert len(await harness.messages(Double)) == MESSAGES
        assert (resent, duplicates) == (0, 0)
        # A publish and an acknowledgement for each message; they leave many at a time.
        assert writes <= MESSAGES // 4
        # The handlers, what runs beside them, and the looks at the lag; none for a message.
        assert created <= 32 + MESSAGES // 4


async def _lag_is_zero(harness: Harness) -> None:
    async def done() -> bool:
        return await harness.lag("double") == 0

    await until(done, "no lag")
