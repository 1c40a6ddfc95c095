"""Messages made from their types: whatever a stage can read, plausible, and the same each time."""

import datetime
import decimal
import enum
import uuid
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import pytest
from msgspec import Meta, Struct
from numpy.typing import NDArray

from examples.plants.app import app as plants
from mqinfer import Blob, Message
from mqinfer.bench.generate import Generator
from mqinfer.bench.pictures import pictures
from mqinfer.bench.source import roots
from mqinfer.codec import CONTENT_TYPES, Codec
from mqinfer.errors import ConfigurationError
from mqinfer.imageheader import read_header


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"


class Inner(Struct):
    x: float
    names: list[str]


class Tree(Struct):
    name: str
    left: "Tree | None" = None
    children: list["Tree"] = []


class Everything(Message, wire="msgpack"):
    text: str
    short: Annotated[str, Meta(max_length=1)]
    long: Annotated[str, Meta(min_length=200)]
    code: Annotated[str, Meta(pattern=r"\A[A-Z]{2}\Z")]
    key: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")]
    number: int
    small: Annotated[int, Meta(ge=3, le=4)]
    above: Annotated[int, Meta(gt=10)]
    below: Annotated[float, Meta(lt=-2)]
    share: Annotated[float, Meta(ge=0, le=1)]
    open_share: Annotated[float, Meta(gt=0, lt=0.1)]
    fives: Annotated[int, Meta(multiple_of=5, ge=7)]
    yes: bool
    data: bytes
    when: datetime.datetime
    aware: Annotated[datetime.datetime, Meta(tz=True)]
    naive: Annotated[datetime.datetime, Meta(tz=False)]
    day: datetime.date
    hour: datetime.time
    span: datetime.timedelta
    who: uuid.UUID
    price: decimal.Decimal
    color: Color
    kind: Literal["a", "b"]
    inner: Inner
    tree: Tree
    many: list[Inner]
    pair: tuple[int, str]
    row: tuple[int, ...]
    unique: set[int]
    frozen: frozenset[str]
    table: dict[str, Inner]
    few: Annotated[list[int], Meta(max_length=1)]
    maybe: int | None
    either: int | str
    anything: Any
    picture: Blob
    pictures: list[Blob]
    array: NDArray[np.float32]
    maybe_array: NDArray[np.uint8] | None
    with_default: int = 7


@pytest.fixture
def generator():
    return Generator(lambda number: b"picture %d" % number)


def test_whatever_a_stage_reads_can_be_made(generator):
    codec = Codec(None)
    for number in range(120):
        made = generator.message(Everything, number)
        payload, wire = codec.write(made)
        back = codec.decode(Everything, payload, CONTENT_TYPES[wire])
        assert back.text == made.text
        assert back.array.dtype == np.float32
    assert generator.message(Everything, 0).array.dtype == np.float32
    assert generator.message(Everything, 1).maybe_array.dtype == np.uint8


def test_the_same_number_is_the_same_message_and_others_are_others(generator):
    class Plain(Message):
        name: str
        number: int

    assert generator.message(Plain, 3) == generator.message(Plain, 3)
    assert len({generator.message(Plain, number).name for number in range(50)}) == 50


def test_the_example_can_be_made(generator):
    codec = Codec(None)
    for kind in roots(plants):
        for number in range(20):
            made = generator.message(kind, number)
            payload, wire = codec.write(made)
            codec.decode(kind, payload, CONTENT_TYPES[wire])
    assert {kind.__name__ for kind in roots(plants)} >= {"DroneImage", "FieldPlan"}


def test_what_cannot_be_made_says_what_to_give(generator):
    class Odd(Message):
        code: Annotated[str, Meta(pattern=r"^[xyz]{5}-\d{3}-[qrs]$")]

    class Empty(Message):
        number: Annotated[int, Meta(gt=3, lt=4)]

    with pytest.raises(ConfigurationError, match=r"Odd\.code: .*--messages FILE, or --sample"):
        generator.message(Odd, 0)
    with pytest.raises(ConfigurationError, match=r"Empty\.number: no value is known for a number"):
        generator.message(Empty, 0)


def test_pictures_are_jpegs_or_those_of_a_folder(tmp_path):
    made = pictures(None)
    assert made(0) == made(8)
    assert made(0) != made(1)
    header = read_header(made(0))
    assert (header.width, header.height) == (640, 480)
    (tmp_path / "a.png").write_bytes(b"a")
    (tmp_path / "b.png").write_bytes(b"b")
    assert [pictures(tmp_path)(number) for number in range(3)] == [b"a", b"b", b"a"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="there is no file in it"):
        pictures(tmp_path / "empty")
    with pytest.raises(ConfigurationError, match="No such file"):
        pictures(tmp_path / "none")


def test_a_type_that_holds_itself_ends(generator):
    made = generator.message(Everything, 5)
    assert msgspec.to_builtins(made.tree)["name"]
