"""An app whose labels are watched: a stand-in for a model of two versions, hostile words."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from mqinfer import App, Blob, Confidence, Input, Label, Message, Row

app = App("watch")
net = app.model("net", alias="live")

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7*7 }}"
LABELS = ("rust", "blight", "", None, HOSTILE, "healthy")


class Photo(Message):
    number: int
    picture: Blob | None = None


class Seen(Row, frozen=True, table="seen", kw_only=True):
    number: int
    label: Annotated[str | None, Label()]
    score: Annotated[float, Confidence()] = 1.0
    width: Annotated[float, Input()] = 224.0
    crop: Blob | None = None


class Plain(Row, frozen=True, table="plain"):
    number: int


@app.stage(models=[net])
async def see(photo: Photo) -> Seen:
    answer = await net(number=np.array([photo.number], np.int64))
    return Seen(
        number=photo.number,
        label=LABELS[int(answer["label"][0])],
        score=float(answer["score"][0]),
        crop=Blob(b"<svg onload=alert(3)>") if photo.number % 10 == 9 else None,
    )


@app.stage
async def copy(photo: Photo) -> Plain:
    return Plain(photo.number)


def first(number: Any) -> dict[str, Any]:
    """Version 1: one label after the other."""
    return {"label": np.array([int(number[0]) % len(LABELS)]), "score": np.array([0.75])}


def second(number: Any) -> dict[str, Any]:
    """Version 2: what was rust is blight."""
    label = int(number[0]) % len(LABELS)
    return {"label": np.array([label or 1]), "score": np.array([0.5])}
