"""An app for jobs of many rows, and for live requests beside them (`tests/jobs/big.py`, `live.py`).

With `BULK_MODEL=1` the handler calls a model that takes some milliseconds.
"""

from __future__ import annotations

import os

import numpy as np

from mqinfer import App, Message

MODEL = "slow"
# Of a model that takes 5 ms for a batch, however many items it has.
SLOW = """
import time

from mqinfer import Tensor


class Slow:
    inputs = {"x": Tensor("float32", (1,))}
    outputs = {"y": Tensor("float32", (1,))}

    def predict(self, x):
        time.sleep(0.005)
        return {"y": 2 * x}
"""

app = App("bulk")
slow = app.model(MODEL)


class Item(Message):
    n: int


class Result(Message):
    n: int
    y: float


if os.environ.get("BULK_MODEL"):

    @app.stage
    async def handle(item: Item) -> Result:
        found = await slow(x=np.array([item.n], np.float32))
        return Result(item.n, found["y"].item())

else:

    @app.stage
    async def handle(item: Item) -> Result:
        return Result(item.n, 2.0 * item.n)


app.endpoint("double", Item, answers=Result)
