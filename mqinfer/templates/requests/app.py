"""Whoever asks gets an answer: an endpoint, by HTTP, as a library call or for a whole file."""

from __future__ import annotations

from typing import Literal

import numpy as np
from mqinfer import App, Message, Reject, Row

app = App("myapp")
sentiment = app.model("sentiment")


class Review(Message):
    text: str
    id: str = ""


class Verdict(Row, table="myapp_verdict", order_by="review"):
    review: str
    mood: Literal["pleased", "cross"]
    score: float  # how pleased: 0 to 1


@app.stage(timeout=10)
async def judge(review: Review) -> Verdict:
    if not review.text.strip():
        raise Reject("a review has a text")  # whoever asked is told
    answer = await sentiment(text=np.array([review.text], object))  # batched with other calls
    score = round(answer["pleased"].item(), 3)
    return Verdict(review.id, "pleased" if score > 0.5 else "cross", score)


app.endpoint("judge", Review, answers=Verdict, deadline="1m", keep="1h")
