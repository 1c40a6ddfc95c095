"""A guard against slowing down that counts work, not time: writes, tasks, requests to Triton."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

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


async def test_a_thousand_model_calls_go_in_few_requests(nats: Settings, tmp_path: Path) -> None:
    from tests.faults import pipeline
    from tests.support.models import save_affine
    from tests.support.triton import serving

    app = App("calls")
    affine = app.model(pipeline.MODEL)

    @app.stage
    async def double(number: Number) -> Double:
        answer = await affine(x=np.array([number.value], dtype=np.float32))
        return Double(int(answer["y"][0]) - 1)

    save_affine(tmp_path / "models", pipeline.MODEL)
    async with (
        serving(tmp_path, tmp_path / "models") as triton,
        Harness(app, replace(nats, triton_url=triton.url)) as harness,
    ):
        await harness.publish(*(Number(value) for value in range(MESSAGES)))
        async with harness.worker() as worker:
            await _lag_is_zero(harness)
            inference = worker.services.inference
            assert inference is not None
            (queue,) = inference.statistics().queues
        answers = await harness.messages(Double)
    assert sorted(answer.value for answer in answers) == [2 * n for n in range(MESSAGES)]
    assert queue.items == MESSAGES
    # 512 calls wait at once, and the model takes 64: nearly full requests but for the first few.
    assert queue.requests <= MESSAGES // 10
    assert (queue.refused, queue.resent) == (0, 0)


async def _lag_is_zero(harness: Harness) -> None:
    async def done() -> bool:
        return await harness.lag("double") == 0

    await until(done, "no lag")
