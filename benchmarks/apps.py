"""The apps whose workers are measured; run as `mqinfer worker benchmarks.apps:<attribute>`.

`BENCH_APP` names the app, and so its stream: each repetition has one of its own.
"""

from __future__ import annotations

import datetime
import os

from mqinfer import App, Blob, Message, Row, State

_NAME = os.environ.get("BENCH_APP", "bench")
_REPLICAS = int(os.environ.get("BENCH_REPLICAS", "1"))


class Item(Message, subject="in"):
    """Something small."""

    n: int
    text: str


class Done(Message, subject="out"):
    """What becomes of it."""

    n: int
    text: str


def echo_of(name: str) -> App:
    """One output for each input."""
    app = App(name, replicas=_REPLICAS)

    @app.stage
    async def work(item: Item) -> Done:
        return Done(item.n, item.text)

    return app


def swallow_of(name: str) -> App:
    """No output."""
    app = App(name, replicas=_REPLICAS)

    @app.stage
    async def work(item: Item) -> None:
        """Take it, and give nothing back."""

    return app


echo = echo_of(_NAME)
swallow = swallow_of(_NAME)


class Number(Message, subject="number"):
    """What is asked."""

    x: float


class Affine(Message, subject="affine"):
    """2 x + 1."""

    y: float


def asked_of(name: str) -> App:
    """An endpoint that a tiny model answers."""
    app = App(name, replicas=_REPLICAS)
    affine = app.model("affine")

    @app.stage
    async def double(number: Number) -> Affine:
        import numpy as np

        answer = await affine(x=np.array([number.x], np.float32))
        return Affine(float(answer["y"][0]))

    app.endpoint("affine", Number, answers=Affine)
    return app


def plain_of(name: str) -> App:
    """The same endpoint without a model."""
    app = App(name, replicas=_REPLICAS)

    @app.stage
    async def double(number: Number) -> Affine:
        return Affine(2 * number.x + 1)

    app.endpoint("affine", Number, answers=Affine)
    return app


asked = asked_of(_NAME)
plain = plain_of(_NAME)


class Part(Message, subject="part"):
    """One of the twenty that a root leads to."""

    n: int
    i: int


class Whole(Message, subject="whole"):
    """What a join makes of twenty answers."""

    n: int
    count: int


def parts_of(name: str, *, join: bool) -> App:
    """Twenty parts of each input, each with an answer; with a join of these, or without."""
    app = App(name, replicas=_REPLICAS)

    @app.stage
    async def cut(item: Item) -> list[Part]:
        return [Part(item.n, i) for i in range(20)]

    @app.stage
    async def work(part: Part) -> Done:
        return Done(part.n, "done")

    if join:

        @app.join(Item, of=Done)
        async def whole(item: Item, parts: list[Done]) -> Whole:
            return Whole(item.n, len(parts))

    return app


parts = parts_of(_NAME, join=False)
joined = parts_of(_NAME, join=True)


class Keyed(Message, subject="keyed", key="k", ordered=True):
    """Something small, in order by key."""

    k: int
    n: int
    text: str


class Counted(Message, subject="out"):
    """What becomes of it."""

    n: int
    count: int
    text: str


class Count(State):
    """How many of a key there were."""

    count: int = 0


def keyed_of(name: str, *, state: bool) -> App:
    """One output for each input in order by key; with a state of each key, or without."""
    app = App(name, replicas=_REPLICAS, partitions=8)
    if state:

        @app.stage(name="work")
        async def remember(item: Keyed, count: Count) -> Counted:
            count.count += 1
            return Counted(item.n, count.count, item.text)
    else:

        @app.stage
        async def work(item: Keyed) -> Counted:
            return Counted(item.n, 0, item.text)

    return app


ordered = keyed_of(_NAME, state=False)
remembering = keyed_of(_NAME, state=True)


class Reading(Row, table="reading", order_by=("station", "time"), shared=True):
    """A row of the kind that stages write; each measurement is an app of its own."""

    n: int
    station: str
    time: datetime.datetime
    label: str
    score: float
    value: float


_BEGAN = datetime.datetime(2026, 5, 1, tzinfo=datetime.UTC)
_LABELS = ("healthy", "rust", "blight", "mildew", "spot", "mosaic")


class Alone(Reading, table="alone", order_by=("station", "time"), shared=True, pack=False):
    """The same, each a message of its own."""


def reading(n: int, kind: type[Reading] = Reading) -> Reading:
    """A row that follows from its number."""
    return kind(
        n=n,
        station=f"station-{n % 997}",
        time=_BEGAN + datetime.timedelta(seconds=n),
        label=_LABELS[n % len(_LABELS)],
        score=(n % 1000) / 1000,
        value=n / 7,
    )


readings = App(_NAME)


@readings.stage
async def measure(item: Item) -> Reading:
    """One row for each input."""
    return reading(item.n)


def alone_of(name: str) -> App:
    """The same, each row a message of its own."""
    app = App(name)

    @app.stage
    async def measure(item: Item) -> Alone:
        row = reading(item.n, Alone)
        assert isinstance(row, Alone)
        return row

    return app


alone = alone_of(_NAME)


class Picture(Message, subject="picture", wire="msgpack"):
    """A photograph as JPEG."""

    n: int
    image: Blob


class Seen(Row, table="seen", order_by=("n",), shared=True):
    """What is on it."""

    n: int
    label: int
    score: float


pictures = App(_NAME)
network = pictures.model("efficientnet_lite0")


@pictures.stage(max_in_flight=128)
async def classify(picture: Picture) -> Seen:
    """Decode, shrink, ask the network."""
    from benchmarks.vision import SIDE, verdict

    small = await picture.image.pixels(size=(SIDE, SIDE))
    label, score = verdict((await network(image=small))["logits"])
    return Seen(picture.n, label, score)
