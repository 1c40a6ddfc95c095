"""Names of types stand for what they name, with parameters in any order."""

import sys
from typing import Any, NewType

import numpy as np
import pytest
from numpy.typing import NDArray

from mqinfer import Message, Row
from mqinfer.codec import Codec
from mqinfer.hints import seen_through
from mqinfer.readable import unreadable
from mqinfer.tables.tables import schema_of

Whole = NewType("Whole", int)
Twice = NewType("Twice", Whole)


def test_a_new_type_and_what_is_no_name() -> None:
    assert seen_through(Twice) is int
    assert seen_through(list[int]) == list[int]
    assert seen_through(NDArray[np.float32] | None) == NDArray[np.float32] | None


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the statement `type` is new in 3.12")
def test_aliases_with_parameters_as_numpy_makes_them() -> None:
    scope: dict[str, Any] = {"np": np, "Any": Any}
    exec(
        "type Array[T: np.generic] = np.ndarray[Any, np.dtype[T]]\n"
        "type Pair[A, B] = dict[B, list[A]]\n"
        "type Floats = Array[np.float32]\n"
        "type Text = str",
        scope,
    )
    array, pair = scope["Array"], scope["Pair"]
    assert seen_through(scope["Text"]) is str
    assert seen_through(pair[int, str]) == dict[str, list[int]]
    assert seen_through(array[np.int8]) == np.ndarray[Any, np.dtype[np.int8]]
    assert seen_through(scope["Floats"]) == np.ndarray[Any, np.dtype[np.float32]]
    for hint in (array[np.float32], scope["Floats"]):
        space = {"__annotations__": {"name": str, "value": hint}, "__module__": __name__}
        kind: Any = type(Message)("Stored", (Row,), space)
        assert unreadable(kind) == ()
        assert "Array(Float32)" in str(schema_of(kind))
        codec = Codec()
        found: Any = codec.decode(kind, codec.write(kind("a", np.ones(2, np.float32)))[0])
        assert found.value.dtype == np.float32
