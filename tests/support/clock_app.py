"""An app for `tests/timers/test_kills.py`: a tick a second."""

from __future__ import annotations

import asyncio
import datetime

from mqinfer import App, Message, Tick

app = App("clock")


class Done(Message):
    at: datetime.datetime


# Longer than a busy machine keeps a worker from saying that it is still at it: each time that it
# cannot costs an attempt, and beside the kills few are left.
@app.every(1, ack_wait=5.0, max_in_flight=4)
async def beat(tick: Tick) -> Done:
    await asyncio.sleep(0.01)
    return Done(tick.at)
