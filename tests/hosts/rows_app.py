"""The app whose Tritons and whose ClickHouse are on other hosts than its worker."""

from __future__ import annotations

import numpy as np

from mqinfer import App, Message, Row
from mqinfer.backoff import Backoff

app = App("rows")
affine = app.model("affine")


class Number(Message):
    number: int


class Answer(Row, frozen=True, table="answer"):
    number: int
    value: int


@app.stage(models=[affine], ack_wait=4.0, backoff=Backoff(initial=0.02, maximum=0.2))
async def answer(number: Number) -> Answer:
    found = await affine(x=np.array([number.number], dtype=np.float32))
    return Answer(number.number, round(float(found["y"][0])))
