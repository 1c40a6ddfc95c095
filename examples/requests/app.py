"""A small backend: two endpoints, both of which take seconds.

    picture --> [recognise] --+--> labels                                 an answer, at once
                              +--> strip --> [cover] --> fall             33 of them, in any order
                    ... all strips done ...
            --> [where] --> heat                                          an answer, at the end
    number  --> [factorial] --> product                                   an answer

`look` says what is on a picture, and where the model saw it; `factorial` is the study's
long-running function. Serve them with

    mqinfer worker examples.requests.app:app
    mqinfer gateway examples.requests.app:app --site examples/requests/site
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta, Struct

from examples.requests import aside, factorial, occlusion
from mqinfer import App, Blob, Context, Message, Reject
from mqinfer.image import encode_png

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIDE = 224  # pixels of what the model looks at, a square out of the picture's middle
LIMIT = 200_000  # of what the factorial is worked out
KEEP = os.environ.get("REQUESTS_KEEP", "24h")  # for how long answers can be fetched

app = App("backend")
model = app.model("lite0")


class Picture(Message):
    """A picture to be looked at."""

    picture: Blob
    name: Annotated[str, Meta(max_length=200)] = ""


class Label(Struct, frozen=True):
    """A name for what is on a picture, and how sure that is, 0 to 1."""

    name: str
    share: float


class Labels(Message):
    """What is on the picture, the likeliest first."""

    labels: list[Label]


class Strip(Message):
    """A row of places to be covered, and the class that is watched meanwhile."""

    square: Blob
    size: int
    row: int
    watched: int
    share: float


class Fall(Message):
    """By how much the class became less likely, at each place of a row."""

    size: int
    row: int
    amounts: list[float]


class Heat(Message):
    """Where the model saw it: 28 rows of 28 values, 0 to 1, of the square in the middle."""

    name: str
    rows: list[list[float]]
    looks: int
    missing: int


class Number(Message):
    """What the factorial is wanted of."""

    n: Annotated[int, Meta(ge=0, le=10**9)]


class Product(Message):
    """A factorial: how many digits, the first ones, the last ones before the zeros at its end."""

    n: int
    digits: int
    first: str
    last: str
    zeros: int
    seconds: float


@app.stage(ack_wait="5s", max_in_flight=8)  # a decoded photograph takes megabytes
async def recognise(picture: Picture, ctx: Context) -> AsyncIterator[Labels | Strip]:
    """Say what is on a picture, and have it looked at more closely."""
    pixels = await picture.picture.pixels(target=SIDE)
    square = await asyncio.to_thread(middle, pixels)
    found = await model(image=square)
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in found["names"]]
    shares = [float(found["probabilities"][best]) for best in found["best"]]
    yield Labels([Label(*one) for one in zip(names, shares, strict=True)])
    # Stored once, whatever number of strips leads to it.
    kept = Blob(await asyncio.to_thread(encode_png, square), path=f"squares/{ctx.id}.png")
    for size, row in occlusion.strips():
        yield Strip(kept, size, row, int(found["best"][0]), shares[0])


# Few at a time: what is not begun yet can be done by another worker, and the first to ask is the
# first to be done.
@app.stage(ack_wait="5s", concurrency=4, max_in_flight=8)
async def cover(strip: Strip) -> Fall:
    """Look again and again, with a patch covered."""
    square = await strip.square.pixels()
    async with asyncio.TaskGroup() as group:
        looks = [
            group.create_task(_look(image))
            for image in occlusion.covered(square, strip.size, strip.row)
        ]
    shares = [float(look.result()[strip.watched]) for look in looks]
    return Fall(strip.size, strip.row, [strip.share - share for share in shares])


async def _look(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    return (await model(image=image))["probabilities"]


@app.join(Picture, of=(Labels, Fall), deadline="4m", ack_wait="5s")
async def where(picture: Picture, found: list[Labels | Fall]) -> Heat | None:
    """Put together where the model looked, of what there is."""
    del picture
    labels = next((one for one in found if isinstance(one, Labels)), None)
    falls = [one for one in found if isinstance(one, Fall)]
    if labels is None or not falls:
        return None
    told = [(one.size, one.row, one.amounts) for one in falls]
    rows = await asyncio.to_thread(occlusion.heat, told, SIDE)
    looks = sum(len(one.amounts) for one in falls)
    missing = sum(1 for _ in occlusion.strips()) - len(falls)
    return Heat(labels.labels[0].name, rows, looks, missing)


@app.stage(name="factorial", ack_wait="5s", concurrency=1, max_in_flight=2, timeout="4m")
async def multiply(number: Number) -> Product:
    """The study's long-running function, in a process of its own."""
    if number.n > LIMIT:
        raise Reject(
            f"{number.n:,} is too much: factorials are worked out up to {LIMIT:,}, which takes "
            "seconds already"
        )
    told = await aside.run(Path(factorial.__file__), str(number.n))
    return msgspec.json.decode(told, type=Product)


app.endpoint("look", Picture, answers=(Labels, Heat), deadline="5m", keep=KEEP)
app.endpoint("factorial", Number, answers=Product, deadline="5m", keep=KEEP)


def middle(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The square in the middle of a picture, at the model's size; in a thread, it is work."""
    import cv2

    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = pixels[top : top + side, left : left + side]
    smaller = cv2.INTER_AREA if side > SIDE else cv2.INTER_LINEAR
    shrunk: NDArray[np.uint8] = cv2.resize(square, (SIDE, SIDE), interpolation=smaller)  # type: ignore[assignment]
    return shrunk
