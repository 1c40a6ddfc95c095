"""The study as an app: photographs by path, and a row for each with what the model says of it.

    picture (a path) --> [predict] --> prediction

What is marked is counted, by time, model and version: `mqinfer monitor`, `mqinfer console`.
"""

from __future__ import annotations

from typing import Annotated

from examples.requests.lite0 import SIDE
from mqinfer import App, Blob, Confidence, Input, Label, Message, Row
from mqinfer.image import check_image, decode_off_loop

app = App("mlwatch")
model = app.model("lite0")


class Picture(Message):
    """A photograph, by its path in the blob store."""

    photograph: Blob


class Prediction(Row, table="prediction"):
    """What the model says of one.

    Attributes:
        photograph: the same path.
        label: the likeliest of 1,000.
        confidence: how sure the model is, 0 to 1.
        brightness: the mean of the pixels, 0 to 255.
        bits: of the file, for each pixel.
    """

    photograph: Blob
    label: Annotated[str, Label()]
    confidence: Annotated[float, Confidence()]
    brightness: Annotated[float, Input()]
    bits: Annotated[float, Input()]


@app.stage(ack_wait="5s", max_in_flight=128)
async def predict(picture: Picture) -> Prediction:
    """Say what is on a photograph."""
    name = picture.photograph.path or "picture"
    data = await picture.photograph.bytes()
    height, width = check_image(data, name=name)
    pixels = await decode_off_loop(data, name=name, size=(SIDE, SIDE))
    found = await model(image=pixels)
    label = found["names"][0]
    return Prediction(
        photograph=picture.photograph,
        label=label.decode() if isinstance(label, bytes) else str(label),
        confidence=float(found["probabilities"][found["best"][0]]),
        brightness=float(pixels.mean()),
        bits=8 * len(data) / (height * width),
    )
