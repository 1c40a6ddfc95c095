"""The pipeline that is replayed: item --> [score] (Triton) --> score, a table."""

from __future__ import annotations

import numpy as np

from mqinfer import App, Context, Message, Row

from .ordinary import ACK_WAIT
from .pipeline import MODEL

app = App("replayed", max_age="1d", duplicate_window="2m")
affine = app.model(MODEL)


class Item(Message, subject="item"):
    number: int


class Score(Row, table="score", order_by=("number",)):
    number: int
    value: int


def value_of(number: int, run: str | None) -> int:
    """What the stage answers; a run answers otherwise, so that its rows are told apart."""
    return 2 * (number % 1000) + 1 + (run is not None)


@app.stage(max_in_flight=200, ack_wait=ACK_WAIT)
async def score(item: Item, ctx: Context) -> Score:
    """One row an item."""
    answer = await affine(x=np.array([item.number % 1000], dtype=np.float32))
    return Score(item.number, round(float(answer["y"][0])) + (ctx.run is not None))
