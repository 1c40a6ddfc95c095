"""The app that is asked: what comes of a message follows from its number (`wishes`).

ask ─ cut ─> leaf ─┬─ grade ───────────────> grade        endpoint "grade"
                   └─ also ─> shape ─ shape ─> grade
survey ─ walk ─> leaf ─ ... ─> grade ─ join ─> report     endpoint "survey"
slow ─ plod ─> step ─ step ─> done                        endpoint "slow", due soon
once ─ at_once ─────────────────────> grade               endpoint "once", one message answers it

And whoever wants it is told the end at an address (`hooks`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated

from msgspec import Meta

from mqinfer import App, Context, Message, Reject, plan
from mqinfer.backoff import Backoff
from mqinfer.gateway.webhooks import webhooks
from mqinfer.jobs import state as jobs

from . import wishes

ACK_WAIT = 3.0  # seconds: what a dead worker had comes again soon
DEADLINE = 4.0  # seconds, of the endpoint "slow"
plan.TRACKER_LIMITS = replace(plan.TRACKER_LIMITS, ack_wait=ACK_WAIT)
plan.DEADLINE_LIMITS = replace(plan.DEADLINE_LIMITS, ack_wait=ACK_WAIT)
plan.JOBS_LIMITS = replace(plan.JOBS_LIMITS, ack_wait=ACK_WAIT)
jobs.LOST = 3.0  # type: ignore[misc]
SOON = Backoff(initial=0.02, maximum=0.1)
# Of what handles a job, a live request and a survey, in this order: who drives, who tracks.
DRIVER = ("mqinfer-jobs",)
# With the stage that ends requests itself, where it knows their states.
TRACKER = (
    "mqinfer-tracker",
    *(f"mqinfer-requests-{name}" for name in wishes.ENDPOINTS),
    "at_once",
)


class Ask(Message):
    n: int
    fan: Annotated[int, Meta(ge=0, le=50)]
    size: int = 0


class Survey(Message):
    n: int
    fan: int


class Slow(Message):
    n: int
    hold: float


class Once(Message):
    n: int
    fan: Annotated[int, Meta(ge=0, le=50)]
    size: int = 0


class Leaf(Message):
    n: int
    i: int
    size: int = 0


class Shape(Message):
    n: int
    i: int


class Grade(Message):
    n: int
    i: int
    note: str = ""


class Report(Message):
    n: int
    grades: list[int]
    died: int


class Step(Message):
    n: int
    i: int
    hold: float


class Done(Message):
    n: int
    i: int


def make(replicas: int) -> App:
    """The app, on so many servers."""
    app = App("asked", replicas=replicas)

    @app.stage(ack_wait=ACK_WAIT, backoff=SOON)
    async def cut(ask: Ask, ctx: Context) -> list[Leaf]:
        if wishes.refused(ask.n):
            raise Reject(wishes.NO)
        if ask.n % 11 == 3 and ctx.attempt == 1:
            raise ValueError("once")
        return [Leaf(ask.n, i, ask.size) for i in range(ask.fan)]

    @app.stage(ack_wait=ACK_WAIT, backoff=SOON)
    async def walk(survey: Survey, ctx: Context) -> AsyncIterator[Leaf]:
        for i in range(survey.fan):
            yield Leaf(survey.n, i)
            if survey.n % 5 == 1 and i == 2 and ctx.attempt == 1:
                raise ValueError("once, on the way")

    @app.stage(ack_wait=ACK_WAIT, backoff=SOON)
    async def also(leaf: Leaf) -> Shape | None:
        return Shape(leaf.n, leaf.i) if wishes.shaped(leaf.n, leaf.i) else None

    @app.stage(ack_wait=ACK_WAIT, backoff=SOON)
    async def shape(shape: Shape, ctx: Context) -> Grade | None:
        await ctx.emit(Grade(shape.n, wishes.OTHER + shape.i))
        return None

    @app.stage(ack_wait=ACK_WAIT, backoff=SOON)
    async def grade(leaf: Leaf, ctx: Context) -> Grade:
        if wishes.rejected(leaf.n, leaf.i):
            raise Reject(wishes.DARK)
        if wishes.broken(leaf.n, leaf.i):
            raise ValueError("a secret of the server")
        if (leaf.n + leaf.i) % 17 == 3 and ctx.attempt == 1:
            raise ValueError("once")
        return Grade(leaf.n, leaf.i, wishes.note(leaf.size))

    @app.join(Survey, of=Grade, ack_wait=ACK_WAIT, backoff=SOON)
    async def report(survey: Survey, grades: list[Grade], ctx: Context) -> Report:
        return Report(survey.n, [one.i for one in grades], len(ctx.died))

    @app.stage(ack_wait=ACK_WAIT, backoff=SOON)
    async def plod(slow: Slow) -> list[Step]:
        return [Step(slow.n, 0, 0.0), Step(slow.n, 1, slow.hold)]

    @app.stage(ack_wait=ACK_WAIT, backoff=SOON, concurrency=200)
    async def step(step: Step) -> Done:
        await asyncio.sleep(step.hold)
        return Done(step.n, step.i)

    @app.stage(ack_wait=ACK_WAIT, backoff=SOON)
    async def at_once(once: Once, ctx: Context) -> AsyncIterator[Grade]:
        if wishes.refused(once.n):
            raise Reject(wishes.NO)
        for i in range(once.fan):
            yield Grade(once.n, i, wishes.note(once.size))
            if once.n % 13 == 4 and i == 1 and ctx.attempt == 1:
                raise ValueError("once, on the way")

    app.endpoint("grade", Ask, answers=Grade, deadline="1h", keep="2h")
    app.endpoint("survey", Survey, answers=Report, deadline="1h", keep="2h")
    app.endpoint("slow", Slow, answers=Done, deadline=DEADLINE, keep="2h")
    app.endpoint("once", Once, answers=Grade, deadline="1h", keep="2h")
    webhooks(app, private=True, backoff=SOON)
    return app


app, cluster = make(1), make(3)
WORKER = tuple(name for name in app.stages if name not in TRACKER)
