"""An app with endpoints, for tests that start workers and gateways, in this process or others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from mqinfer import App, Blob, Message, Reject
from mqinfer.testing import until

app = App("asked")


class Photo(Message):
    name: Annotated[str, Meta(min_length=1, max_length=40)]
    leaves: Annotated[int, Meta(ge=0, le=100)] = 0
    hold: str = ""
    picture: Blob | None = None


class Leaf(Message):
    photo: str
    number: int
    hold: str = ""


class Grade(Message):
    photo: str
    number: int


class Size(Message):
    name: str
    bytes: int


class Thing(Message, key="id"):
    id: str


class Seen(Message):
    id: str


@app.stage(attempts=1)
async def cut(photo: Photo) -> list[Leaf]:
    if photo.name == "bad":
        raise Reject("no photograph of a plant")
    if photo.name == "broken":
        raise RuntimeError("secret of the server")
    return [Leaf(photo.name, number, photo.hold) for number in range(photo.leaves)]


@app.stage(attempts=1)
async def grade(leaf: Leaf) -> Grade:
    """The leaves behind the first one wait for as long as a file is there."""
    if leaf.hold and leaf.number:
        await until(lambda: not Path(leaf.hold).exists(), "the file's end")
    if leaf.photo == "partly" and leaf.number == 1:
        raise Reject("no leaf")
    return Grade(leaf.photo, leaf.number)


@app.stage
async def weigh(photo: Photo) -> Size | None:
    if photo.picture is None:
        return None
    return Size(photo.name, len(await photo.picture.bytes()))


@app.stage
async def see(thing: Thing) -> Seen:
    return Seen(thing.id)


app.endpoint("grade", Photo, answers=(Grade, Size), deadline="2m", keep="1h")
app.endpoint("see", Thing, answers=Seen)
