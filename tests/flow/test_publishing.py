"""Publish one message and wait: stored, a repeat, refused, and a caller that gave up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mqinfer.errors import PublishError
from mqinfer.flow.publishing import publish_stored
from tests.support.flow import FakeBroker, turns


async def publishing(broker: Any) -> asyncio.Task[bool]:
    task = asyncio.create_task(publish_stored(broker, "t.x", b"", b"data"))
    await turns()
    assert not task.done()
    return task


@pytest.mark.parametrize("repeat", [False, True])
async def test_it_returns_when_the_stream_has_it(repeat: bool) -> None:
    broker = FakeBroker()
    task = await publishing(broker)
    broker.answer(repeat=repeat)
    assert await task is repeat


async def test_a_refusal_is_raised() -> None:
    broker = FakeBroker()
    task = await publishing(broker)
    broker.answer(error=PublishError("no"))
    with pytest.raises(PublishError, match="no"):
        await task


async def test_an_answer_to_a_caller_that_gave_up_is_dropped() -> None:
    broker = FakeBroker()
    task = await publishing(broker)
    task.cancel()
    await turns()
    broker.answer(error=PublishError("no"))
    assert task.cancelled()
