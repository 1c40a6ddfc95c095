"""Notes are found by what is like them: a stage makes vectors, an index holds them."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from mqinfer import App, Column, Message, Row

app = App("myapp")
embedding = app.model("embedding")


class Note(Message):
    id: str
    text: str


class Vector(Row, table="myapp_vector", order_by="note"):
    note: str
    text: str
    vector: Annotated[list[float], Column("Array(Float32)")]


notes = app.index("notes", of=Vector, key="note", filters=["text"])


@app.stage
async def embed(note: Note) -> Vector:
    return Vector(note.id, note.text, await vector_of(note.text))


async def like(text: str, k: int = 3) -> list[str]:
    """The texts that are nearest, where a client or a worker is open."""
    hits = await notes.search(await vector_of(text), k=k)
    return [str(hit.values["text"]) for hit in hits]


async def vector_of(text: str) -> list[float]:
    answer = await embedding(text=np.array([text], object))  # batched with other calls
    return [float(number) for number in answer["vector"]]
