"""Types whose messages nothing could read are refused when wired; all others are read."""

import dataclasses
import decimal
import pathlib
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from mqinfer import App, Blob, Message, Row
from mqinfer.codec import Codec
from mqinfer.errors import DecodeError, WiringError
from mqinfer.operate.check import check_wiring
from mqinfer.readable import unreadable
from tests.support.names import named


class Loose(msgspec.Struct):
    x: int


class Firm(msgspec.Struct, frozen=True):
    x: int


class Cat(msgspec.Struct, tag=True):
    x: int


class Dog(msgspec.Struct, tag=True):
    y: int


class Deep(msgspec.Struct):
    place: list[pathlib.PurePosixPath]


@dataclasses.dataclass
class Data:
    x: int


def message(hint: Any, wire: str = "json") -> type[Message]:
    space = {"__annotations__": {"value": hint}, "__module__": __name__}
    kind: type[Message] = type(Message)("Sample", (Message,), space, wire=wire)
    return kind


@pytest.mark.parametrize(
    ("hint", "advice"),
    [
        (Blob | str, "a Blob or an array stands alone, or beside None"),
        (Blob | NDArray[np.float32], "stands alone"),
        (list[NDArray[np.float32] | list[float]], "stands alone"),
        (list[int] | tuple[str, ...], "make two fields"),
        (Loose | dict[str, int], "a union of Structs with tag=True"),
        (Loose | Firm, "tag=True"),
        (pathlib.Path, "a Path cannot be read back: use str"),
        (dict[str, pathlib.PurePath | None], "use str"),
        (Deep, "use str"),
        (complex, "use two floats"),
        (object, "use Any"),
        (np.float32, "a float32 cannot be read back: use float, or an array"),
        (list[np.int64], "use int"),
        (np.bool_, "use bool"),
        (Exception, "a dataclass or a msgspec.Struct"),
        (set[list[int]], "use a list"),
        (set[Loose], "frozen Structs"),
        (set[Data], "frozen Structs"),
        (frozenset[tuple[dict[str, int], ...]], "use a list"),
        (dict[Firm, int], "wire='msgpack'"),
        (dict[tuple[int, int], int], "wire='msgpack'"),
        ("Nowhere", "at the top of its module"),
    ],
    ids=named,
)
def test_what_cannot_be_read_is_a_mistake_in_the_wiring(hint: Any, advice: str) -> None:
    kind = message(hint)
    app = App("refused")

    async def work(item: Any) -> None: ...

    work.__annotations__["item"] = kind
    app.stage(work)
    problems = check_wiring(app)[0].problems
    assert len(problems) == 1
    assert problems[0].startswith("stage work: Sample")
    assert advice in problems[0]
    with pytest.raises(WiringError, match="Sample"):
        _ = app.stages


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Blob | None, None),
        (list[Blob | None], ["a/b.png"]),
        (NDArray[np.float32] | None, None),
        (dict[str, list[NDArray[np.float32]]], {"a": [[1.0]]}),
        (Any, {"a": [1]}),
        (list, [[1]]),
        (Cat | Dog, {"type": "Dog", "y": 1}),
        (set[Firm], [{"x": 1}]),
        (set[tuple[int, ...]], [[1, 2]]),
        (set[frozenset[int]], [[1, 2]]),
        (dict[int, float], {"1": 2.0}),
        (dict[decimal.Decimal, Data], {"1.5": {"x": 1}}),
        (int | str | list[int] | dict[str, int] | None, "x"),
    ],
    ids=named,
)
@pytest.mark.parametrize("wire", ["json", "msgpack"])
def test_what_passes_is_read(hint: Any, value: Any, wire: str) -> None:
    kind = message(hint, wire)
    assert unreadable(kind) == ()
    data = msgspec.json.encode({"value": value})
    assert isinstance(Codec().decode(kind, data, "application/json"), kind)


def test_msgpack_has_keys_that_json_has_not() -> None:
    kind = message(dict[tuple[int, int], int], "msgpack")
    assert unreadable(kind) == ()
    found: Any = Codec().decode(kind, Codec().encode(kind({(1, 2): 3})), "application/msgpack")
    assert found.value == {(1, 2): 3}


def test_every_field_at_fault_is_named_once_for_all_stages_and_the_table() -> None:
    class Faulty(Row):
        name: str
        path: pathlib.Path
        other: complex

    app = App("twice")

    @app.stage
    async def one(item: Faulty) -> None: ...

    @app.stage
    async def two(item: Faulty) -> None: ...

    assert [line.split(": ")[1] for line in check_wiring(app)[0].problems] == [
        "Faulty.path",
        "Faulty.other",
    ]


def test_a_payload_is_no_such_type_even_if_nobody_checked() -> None:
    with pytest.raises(DecodeError, match="not supported"):
        Codec().decode(message(complex), b'{"value": 1}')
