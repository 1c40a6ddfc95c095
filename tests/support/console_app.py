"""An app whose console is looked at: stages that fail when told, an endpoint, hostile words."""

from __future__ import annotations

import os

from mqinfer import App, Blob, Message, Reject

app = App("garden")

# What an error says, and a page must not become.
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


class Photo(Message):
    name: str
    leaves: int = 1
    bad: str = ""
    picture: Blob | None = None


class Leaf(Message):
    photo: str
    number: int


class Grade(Message):
    photo: str
    number: int


@app.stage(attempts=1)
async def cut(photo: Photo) -> list[Leaf]:
    """A photo is bad while the file that it names is there."""
    if photo.bad and os.access(photo.bad, os.F_OK):
        raise RuntimeError(f"{photo.name} cannot be cut: {HOSTILE}")
    if photo.name == "none":
        raise Reject("no photograph of a plant")
    return [Leaf(photo.name, number) for number in range(photo.leaves)]


@app.stage(attempts=1)
async def grade(leaf: Leaf) -> Grade:
    return Grade(leaf.photo, leaf.number)


app.endpoint("grade", Photo, answers=Grade, deadline="10m", keep="1h")
