"""An app whose stage makes the vectors, for replays of it."""

from __future__ import annotations

from mqinfer import App, Message

app = App("searched_run")
turn = 0.0  # by which the stage turns vectors: another version of it


class Picture(Message, subject="picture"):
    number: int


class Vector(Message, frozen=True, subject="vector", wire="msgpack"):
    number: int
    vector: list[float]


@app.stage
async def embed(picture: Picture) -> Vector:
    return Vector(picture.number, [1.0, picture.number + 1.0, turn])


pictures = app.index("pictures", of=Vector, key="number", shards=2)
