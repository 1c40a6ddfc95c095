"""Reviews become verdicts: a message, a stage that asks a model, a row."""

from __future__ import annotations

from typing import Literal

import numpy as np
from mqinfer import App, Context, Message, Reject, Row

app = App("myapp")
sentiment = app.model("sentiment")


class Review(Message):
    id: str
    text: str


class Verdict(Row, table="myapp_verdict", order_by="review"):
    review: str
    mood: Literal["pleased", "cross"]
    score: float  # how pleased: 0 to 1


@app.stage
async def judge(review: Review, ctx: Context) -> Verdict:
    if not review.text.strip():
        raise Reject(f"review {review.id} has no text")
    answer = await sentiment(text=np.array([review.text], object))  # batched with other calls
    score = round(answer["pleased"].item(), 3)
    ctx.log.info("judged", review=review.id, score=score)
    return Verdict(review.id, "pleased" if score > 0.5 else "cross", score)
