"""What the fragments of a page take for granted: the names that a reader has by then."""

from __future__ import annotations

_TYPES = """
import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import numpy as np

import mqinfer
from mqinfer import *
from mqinfer.testing import FakeModels, Harness, nats_only
"""

# By page; what stands in the blocks before is there as well.
PRELUDES = {
    "README.md": """
def cut(pixels, box):
    return b"leaf"
""",
    "docs/stages.md": f"""{_TYPES}
from functools import partial

app = App("plants")
llm, detector = app.model("llm"), app.model("leaf_detector")
array = np.zeros((1, 1, 3), np.uint8)
jpeg = b"jpeg"
Worker = partial(Worker, drain=True)


class Photo(Message):
    position: str
    image: Blob


class Leaf(Message): ...
class Count(Message): ...
class Token(Message):
    text: str
class Ask(Message):
    prompt: str


@asynccontextmanager
async def database():
    yield None


@app.stage
async def crop(photo: Photo) -> Leaf | None: ...
""",
    "docs/tutorial.md": _TYPES,
    "docs/models.md": f"""{_TYPES}
import mqinfer.catalog

app = App("flowers")


class Flower(Message):
    id: str
    sides: list[float]


class Species(Row):
    id: str
    label: int
    version: str


flower = Flower("f", [7, 2, 3, 4])
""",
    "docs/working.md": f"""{_TYPES}
app = App("shop")
sentiment = app.model("sentiment")
class Review(Message):
    id: str
    text: str
class Verdict(Message):
    review: str
    mood: str
    score: float
@app.stage
async def judge(review: Review, ctx: Context) -> Verdict:
    score = (await sentiment(text=np.array([review.text], object)))["pleased"].item()
    return Verdict(review.id, "pleased" if score > 0.5 else "cross", score)
""",
    "docs/guarantees.md": f"""{_TYPES}
app = App("plants")
llm = app.model("llm")
class Prompt(Message):
    text: str
class Token(Message):
    text: object = None
class Answer(Message): ...
""",
    "docs/timers.md": f"""{_TYPES}
app = App("garden")
tomorrow = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
class Photo(Message, key="position"):
    position: str
class Alarm(Message):
    text: str
class Report(Message):
    day: datetime.date
""",
    "examples/mlwatch/README.md": f"""{_TYPES}
app = App("photographs")
class Picture(Message):
    path: str
""",
}
# Blocks that ask servers beside NATS, or one that somebody else runs: where they are run as well.
ELSEWHERE = {
    ("docs/models.md", 3): "tests/catalog/test_building.py",
    ("docs/gateway.md", 1): "tests/gateway/test_docs.py",
    ("docs/search.md", 1): "tests/search/test_table.py",
    ("examples/hello/README.md", 0): "tests/docs/test_tables.py",
    ("examples/plants/README.md", 0): "tests/docs/test_tables.py",
}
