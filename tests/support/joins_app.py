"""An app with a join whose workers die between two steps, for `tests/joins/kills.py`.

    JOINS_KILL=25 python -m mqinfer worker tests.support.joins_app:app

dies at its 25th step: the moment before something is published, before it is known that it is
stored, or before a message is acknowledged. What a photo leads to follows from its number.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace

from mqinfer import App, Context, Message, Reject, plan
from mqinfer.backoff import Backoff
from tests.support.deaths import dying

ACK_WAIT = 3.0  # seconds: what a dead worker had comes again soon
plan.TRACKER_LIMITS = replace(plan.TRACKER_LIMITS, ack_wait=ACK_WAIT)
app = App("joined")
SOON = Backoff(initial=0.02, maximum=0.1)


class Photo(Message):
    n: int


class Leaf(Message):
    n: int
    i: int


class Shape(Message):
    n: int
    i: int


class Grade(Message):
    n: int
    i: int


class Report(Message):
    n: int
    grades: list[int]
    died: int
    incomplete: str


def fan(n: int) -> int:
    return n * 7 % 13


def rejected(n: int, i: int) -> bool:
    return (n + i) % 9 == 4


def truth(n: int) -> Report:
    """What the join must be given."""
    grades = []
    for i in range(fan(n)):
        grades += [100 + i] if i % 2 else []
        grades += [] if rejected(n, i) else [i]
    died = sum(rejected(n, i) for i in range(fan(n)))
    return Report(n, grades, died, "")


@app.stage(ack_wait=ACK_WAIT, backoff=SOON)
async def cut(photo: Photo, ctx: Context) -> AsyncIterator[Leaf]:
    for i in range(fan(photo.n)):
        yield Leaf(photo.n, i)
        if photo.n % 5 == 1 and i == 2 and ctx.attempt == 1:
            raise ValueError("once, on the way")


@app.stage(ack_wait=ACK_WAIT, backoff=SOON)
async def also(leaf: Leaf) -> Shape | None:
    return Shape(leaf.n, leaf.i) if leaf.i % 2 else None


@app.stage(ack_wait=ACK_WAIT, backoff=SOON)
async def shape(shape: Shape, ctx: Context) -> Grade | None:
    await ctx.emit(Grade(shape.n, 100 + shape.i))
    return None


@app.stage(ack_wait=ACK_WAIT, backoff=SOON)
async def grade(leaf: Leaf, ctx: Context) -> Grade:
    if rejected(leaf.n, leaf.i):
        raise Reject("too dark")
    if (leaf.n + leaf.i) % 7 == 3 and ctx.attempt == 1:
        raise ValueError("once")
    return Grade(leaf.n, leaf.i)


@app.join(Photo, of=Grade, ack_wait=ACK_WAIT, backoff=SOON)
async def report(photo: Photo, grades: list[Grade], ctx: Context) -> Report:
    return Report(photo.n, [grade.i for grade in grades], len(ctx.died), ctx.incomplete)


if steps := int(os.environ.get("JOINS_KILL", "0")):
    dying(steps)
