"""An app whose requests are cheap to answer, and wait for long, for `tests.gateway.many`."""

from __future__ import annotations

from mqinfer import App, Message

app = App("many")


class Asked(Message):
    n: int


class Answered(Message):
    n: int


@app.stage
async def answer(asked: Asked) -> Answered:
    return Answered(asked.n)


app.endpoint("answer", Asked, answers=Answered, deadline="2h", keep="2h")
