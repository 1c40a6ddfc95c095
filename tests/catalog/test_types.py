"""Messages made of schemas: each value that fits goes through and back, all others are refused."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.catalog.building import _array
from mqinfer.catalog.types import message_type
from mqinfer.codec import Codec
from mqinfer.errors import ConfigurationError, Reject
from mqinfer.message import Message
from mqinfer.packed.schema import _TYPES
from mqinfer.readable import unreadable

INTEGERS = [name for name in _TYPES if name.lstrip("u").startswith("int")]
FLOATS = [name for name in _TYPES if name.startswith("float")]


def made(tensors: dict[str, Any], about: dict[str, Any] | None = None) -> type[Message]:
    return message_type("Made", "made", tensors, about or {}, "A type.", "models.toml: models.m")


def read(kind: type[Message], **fields: Any) -> Any:
    return Codec().decode(kind, json.dumps(fields).encode())


def refused(kind: type[Message], **fields: Any) -> str:
    with pytest.raises(Reject) as error:
        read(kind, **fields)
    return str(error.value)


def test_fields_have_types_bounds_and_words() -> None:
    kind = made(
        {"width": ["float32", []], "leaves": ["uint8", [2, -1]], "name": ["string", []]},
        {
            "width": {"ge": 0.1, "le": 30, "description": "cm"},
            "leaves": {"le": 9, "description": "by stem"},
            "name": {"one_of": ["a", "b"]},
        },
    )
    (schema,), parts = msgspec.json.schema_components([kind])
    assert schema == {"$ref": "#/$defs/Made"}
    assert parts["Made"]["required"] == ["width", "leaves", "name"]
    assert parts["Made"]["properties"] == {
        "width": {"type": "number", "minimum": 0.1, "maximum": 30, "description": "cm"},
        "leaves": {
            "type": "array",
            "description": "by stem",
            "minItems": 2,
            "maxItems": 2,
            "items": {
                "type": "array",
                "items": {"type": "integer", "minimum": 0, "maximum": 9},
            },
        },
        "name": {"enum": ["a", "b"]},
    }
    assert parts["Made"]["description"] == "A type."
    assert unreadable(kind) == ()
    assert read(kind, width=1, leaves=[[1], [9, 0]], name="a").leaves == [[1], [9, 0]]
    assert "$.width" in refused(kind, width="asdfg", leaves=[[], []], name="a")
    assert "$.width" in refused(kind, width=31, leaves=[[], []], name="a")
    assert "$.leaves[1][0]" in refused(kind, width=1, leaves=[[], [10]], name="a")
    assert "$.name" in refused(kind, width=1, leaves=[[], []], name="c")


@given(st.sampled_from(INTEGERS), st.data())
def test_integers_are_those_of_their_type(dtype: str, data: st.DataObject) -> None:
    kind, info = made({"n": [dtype, []]}), np.iinfo(dtype)
    least, most = int(info.min), min(int(info.max), 2**63 - 1)
    number = data.draw(st.integers(least, most))
    assert int(_array("n", read(kind, n=number).n, np.dtype(dtype), [1])[0]) == number
    beyond = data.draw(st.integers(max_value=least - 1) | st.integers(min_value=most + 1))
    assert refused(kind, n=beyond)


@given(st.sampled_from(FLOATS), st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_rounded_to_its_type_or_refused(dtype: str, number: float) -> None:
    value = read(made({"x": [dtype, []]}), x=number).x
    if abs(number) <= float(np.finfo(dtype).max):
        found = float(_array("x", value, np.dtype(dtype), [1])[0])
        assert math.isclose(found, number, rel_tol=2e-3, abs_tol=1e-4)
    else:
        with np.errstate(over="ignore"):
            fits = bool(np.isfinite(np.float64(number).astype(dtype)))
        if not fits:
            with pytest.raises(Reject, match="x is larger than"):
                _array("x", value, np.dtype(dtype), [1])


@pytest.mark.parametrize(
    ("value", "sides", "said"),
    [([[1.0], [1.0, 2.0]], [-1, -1], "x: "), ([1.0], [-1, -1], "x has 1 sides, not 2")],
)
def test_a_nested_list_is_regular(value: Any, sides: list[int], said: str) -> None:
    for dtype in ("float32", object):
        with pytest.raises(Reject, match="x"):
            _array("x", value, np.dtype(dtype), sides)
    with pytest.raises(Reject, match=said):
        _array("x", value, np.dtype("float32"), sides)


@pytest.mark.parametrize(
    ("tensors", "about", "said"),
    [
        ({"petal width": ["float32", []]}, {}, "'petal width' cannot name a field"),
        ({"class": ["float32", []]}, {}, "'class' cannot name a field"),
        ({"x": ["string", []]}, {"x": {"ge": 0}}, "'x' is string, which has no ge= and le="),
        ({"x": ["float32", []]}, {"x": {"one_of": [1]}}, "one_of= is of texts or integers"),
        ({"x": ["int8", []]}, {"x": {"one_of": ["a"]}}, "'x' is int8, and one_of= has 'a'"),
        ({"x": ["int8", []]}, {"x": {"ge": 0.5}}, "ge= and le= are integers"),
    ],
)
def test_what_cannot_be_a_field_is_told(
    tensors: dict[str, Any], about: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"models.toml: models.m: ") as error:
        made(tensors, about)
    assert said in str(error.value)
