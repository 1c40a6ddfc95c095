"""An app for `tests/timers/test_kills.py`: timers that are set, replaced and cancelled by name."""

from __future__ import annotations

import asyncio

from mqinfer import App, Context, Message
from mqinfer.backoff import Backoff

app = App("timed")


class Step(Message, key="position"):
    position: str
    number: int
    ask: str  # "set", "cancel", or "alone": a timer without a name
    after: float


class Due(Message, key="position"):
    position: str
    number: int


class Answer(Message):
    position: str
    number: int


@app.stage(later=Due, ack_wait=2.0, backoff=Backoff(initial=0.02, maximum=0.1))
async def steps(step: Step, ctx: Context) -> None:
    await asyncio.sleep(0.002)
    if step.ask == "cancel":
        await ctx.cancel("check")
        return
    name = None if step.ask == "alone" else "check"
    await ctx.later(Due(step.position, step.number), after=step.after, name=name)


@app.stage(ack_wait=2.0)
async def due(message: Due) -> Answer:
    await asyncio.sleep(0.002)
    return Answer(message.position, message.number)
