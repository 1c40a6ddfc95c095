"""Apps whose spans are looked at: one with all that makes spans, and a small one that dies."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np

from mqinfer import App, Context, Message, Row
from mqinfer.backoff import Backoff
from mqinfer.testing import until

SOON = Backoff(initial=0.01, maximum=0.05)

app = App("traced")
affine = app.model("affine")


class Photo(Message):
    name: str
    leaves: int


class Leaf(Message):
    photo: str
    number: int


class Grade(Row, table="traced_grade", order_by=("photo", "number")):
    photo: str
    number: int
    value: float


class Shape(Message):
    number: int


class Report(Message):
    total: float


@app.stage
async def cut(photo: Photo) -> list[Leaf]:
    return [Leaf(photo.name, number) for number in range(photo.leaves)]


@app.stage(backoff=SOON)
async def grade(leaf: Leaf, ctx: Context) -> Grade:
    if leaf.number == 1 and ctx.attempt == 1:
        raise ValueError("the first attempt")
    found = await affine(x=np.array([leaf.number], np.float32))
    return Grade(leaf.photo, leaf.number, float(found["y"][0]))


@app.stage
def shape(leaves: list[Leaf]) -> list[Shape]:
    return [Shape(leaf.number) for leaf in leaves]


@app.join(Photo, of=Grade)
async def report(photo: Photo, grades: list[Grade]) -> Report:
    return Report(sum(grade.value for grade in grades))


app.endpoint("grade", Photo, answers=Grade)

small = App("small")


class One(Message):
    n: int


class Two(Message):
    n: int


@small.stage
async def first(one: One) -> Two:
    return Two(one.n)


@small.stage(ack_wait=1.0)
async def second(two: Two) -> None:
    if dies := os.environ.get("TRACED_DIES"):
        await until(Path(dies).exists)
        os.kill(os.getpid(), signal.SIGKILL)
