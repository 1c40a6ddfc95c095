"""What the emitter waits for: room on the stream, which is not the handler's time."""

import asyncio
from types import SimpleNamespace
from typing import Any

from mqinfer import App
from mqinfer.context import Context, current
from mqinfer.flow.emitter import Emitter
from mqinfer.testing import until


def emitter(room: asyncio.Event) -> Emitter:
    """Of a stage that writes nothing, on a stream that is full until there is room."""
    broker: Any = SimpleNamespace(full=True, room=room.wait)
    codec: Any = None
    return Emitter(
        App("plants"), "s", (), run=None, codec=codec, store=None, inline_limit=0, broker=broker
    )


async def test_a_wait_for_room_is_no_wait_more_beside_that_of_a_model_call():
    room = asyncio.Event()
    context = Context(id="1", stage="s", sequence=1)
    token = current.set(context)
    waiting = asyncio.create_task(emitter(room).prepare(()))
    current.reset(token)
    await until(lambda: context.waiting_since is not None)
    since = context.waiting_since
    assert since is not None
    context.pause(since + 1)
    room.set()
    await waiting
    assert context.waiting_since == since, "the model call waits still"
    context.resume(since + 60)
    assert (context.waiting_since, context.waited) == (None, 60)


async def test_without_a_message_it_just_waits():
    room = asyncio.Event()
    room.set()
    await emitter(room).prepare(())
