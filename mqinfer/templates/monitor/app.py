"""Reviews become verdicts, and somebody watches whether the model still says what it said."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from mqinfer import App, Confidence, Input, Label, Message, Reject, Row

app = App("myapp")
sentiment = app.model("sentiment")


class Review(Message):
    id: str
    text: str


class Verdict(Row, table="myapp_verdict", order_by="review"):
    review: str
    mood: Annotated[Literal["pleased", "cross"], Label()]  # what the model answered
    sure: Annotated[float, Confidence()]  # how sure it was: 0 to 1
    words: Annotated[int, Input()]  # what is known of what it was given


@app.stage
async def judge(review: Review) -> Verdict:
    if not review.text.strip():
        raise Reject(f"review {review.id} has no text")
    answer = await sentiment(text=np.array([review.text], object))  # batched with other calls
    score = answer["pleased"].item()
    mood: Literal["pleased", "cross"] = "pleased" if score > 0.5 else "cross"
    return Verdict(review.id, mood, max(score, 1 - score), len(review.text.split()))
