"""An app whose vectors are indexed, for processes of the tests."""

from __future__ import annotations

from typing import Annotated

from mqinfer import App, Column, Row

app = App("searched")


class Vector(Row, frozen=True, table="searched_vector", order_by="picture_id", wire="msgpack"):
    picture_id: str
    vector: Annotated[list[float], Column("Array(Float32)")]
    station: str = ""
    number: int = 0


pictures = app.index(
    "pictures", of=Vector, key="picture_id", filters=("station", "number"), shards=2
)
