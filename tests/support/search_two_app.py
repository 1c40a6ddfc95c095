"""An app whose pictures have vectors of two models, without tables."""

from __future__ import annotations

from mqinfer import App, Message

app = App("searched_two")


class Small(Message, frozen=True, subject="small", wire="msgpack"):
    picture: int
    vector: list[float]


class Large(Message, frozen=True, subject="large", wire="msgpack"):
    picture: int
    vector: list[float]


pictures = app.index("pictures", of={"small": Small, "large": Large}, key="picture", shards=2)
