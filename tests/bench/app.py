"""A pipeline for the tests of the bench: a generator, a plain def, a batch, and one that fails."""

import asyncio
from collections.abc import AsyncIterator

from mqinfer import App, Message

app = App("benched")


class Photo(Message):
    width: int
    name: str


class Part(Message, key="name"):
    name: str
    number: int


class Sum(Message):
    total: int


class Odd(Message):
    number: int


@app.stage
async def cut(photo: Photo) -> AsyncIterator[Part]:
    await asyncio.sleep(0)
    for number in range(3):
        yield Part(photo.name, number)


@app.stage
def add(part: Part) -> Sum:
    return Sum(sum(range(part.number + 100)))


@app.stage(batch_size=20, batch_wait=0.01)
async def slow(sums: list[Sum]) -> list[None]:
    await asyncio.sleep(0.01)
    return [None] * len(sums)


@app.stage(attempts=1)
async def refuse(odd: Odd) -> None:
    raise ValueError(f"odd: {odd.number}")
