"""Items against what a model wants, put together into requests and taken apart."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.errors import (
    BadTensor,
)
from mqinfer.inference import tensors
from mqinfer.ports import ModelReply
from tests.support.inference import (
    DETECTOR,
    DOUBLE,
    IMAGE,
    TEXT,
    x,
)


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        (
            {"image": IMAGE.astype(np.float32)},
            "model leaf_detector: input 'image' is float32 (480, 640, 3), "
            "the model wants uint8 (480, 640, 3)",
        ),
        (
            {"image": IMAGE[:2]},
            "model leaf_detector: input 'image' is uint8 (2, 640, 3), "
            "the model wants uint8 (480, 640, 3)",
        ),
        (
            {"image": IMAGE[np.newaxis]},
            "model leaf_detector: input 'image' is uint8 (1, 480, 640, 3), "
            "the model wants uint8 (480, 640, 3)",
        ),
        (
            {"picture": IMAGE},
            "model leaf_detector: input 'image' is missing; the model's inputs are "
            "'image' uint8 (480, 640, 3), 'note' strings (1,) (optional)",
        ),
        (
            {"image": IMAGE, "boxes": IMAGE},
            "model leaf_detector: no input is called 'boxes'; the model's inputs are "
            "'image' uint8 (480, 640, 3), 'note' strings (1,) (optional)",
        ),
        (
            {"image": [[1, 2], [3, 4]]},
            "model leaf_detector: input 'image' is a list; pass a NumPy array, uint8 (480, 640, 3)",
        ),
        (
            {"image": None},
            "model leaf_detector: input 'image' is a NoneType; "
            "pass a NumPy array, uint8 (480, 640, 3)",
        ),
        (
            {"image": IMAGE, "note": np.array([7], object)},
            "model leaf_detector: input 'note' holds a int; its elements must be str or bytes",
        ),
        (
            {"image": IMAGE, "note": np.array(["a", "b"])},
            "model leaf_detector: input 'note' is str64 (2,), the model wants strings (1,)",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_both_sides_named(
    inputs: dict[str, Any], text: str
) -> None:
    with pytest.raises(BadTensor) as caught:
        tensors.check(DETECTOR, inputs)
    assert str(caught.value) == text.replace("str64", np.dtype("<U1").name)


def test_shapes_with_free_sides_are_said_so() -> None:
    with pytest.raises(BadTensor, match=r"is float32 \(1, 1\), the model wants float32 \(any,\)"):
        tensors.check(DOUBLE, {"x": x(1)[np.newaxis]})


def test_foreign_byte_order_is_refused() -> None:
    with pytest.raises(BadTensor, match="foreign byte order"):
        tensors.check(DOUBLE, {"x": np.zeros(1, ">f4")})


def test_what_fits_is_sent_as_it_is_in_the_order_of_the_model() -> None:
    note = np.array(["a"], object)
    checked = tensors.check(DETECTOR, {"note": note, "image": IMAGE})
    assert list(checked) == ["image", "note"]
    assert checked["image"] is IMAGE
    assert checked["note"] is note
    assert list(tensors.check(DETECTOR, {"image": IMAGE})) == ["image"]


def test_strings_of_numpy_become_objects_of_the_same_value() -> None:
    note = tensors.check(DETECTOR, {"image": IMAGE, "note": np.array(["grün"])})["note"]
    assert (note.dtype, note.tolist()) == (TEXT, ["grün"])


def test_only_items_of_the_same_names_types_and_shapes_may_share_a_request() -> None:
    same = tensors.signature({"x": x(1, 2)})
    assert same == tensors.signature({"x": x(3, 4)})
    assert same != tensors.signature({"x": x(1)})
    assert same != tensors.signature({"y": x(1, 2)})
    assert same != tensors.signature({"x": np.zeros(2)})


def test_the_size_is_that_of_the_bytes_sent() -> None:
    assert tensors.size({"x": x(1, 2), "y": np.zeros(3, np.uint8)}) == 2 * 4 + 3
    assert tensors.size({"note": np.array([["ab", b"c"]], object)}) == (4 + 2) + (4 + 1)


@given(st.lists(st.lists(st.floats(width=32), min_size=2, max_size=2), min_size=1, max_size=8))
def test_what_was_put_together_comes_apart_again(items: list[list[float]]) -> None:
    batch = tensors.assemble(DOUBLE, [{"x": x(*item)} for item in items])
    assert batch["x"].shape == (len(items), 2)
    outputs = tensors.split(DOUBLE, ModelReply({"y": batch["x"]}, "2"), len(items))
    for item, output in zip(items, outputs, strict=True):
        np.testing.assert_array_equal(output["y"], x(*item))


def test_a_model_without_batch_dimension_takes_its_one_item_as_it_is() -> None:
    alone, item = replace(DOUBLE, max_batch_size=0), {"x": x(1, 2)}
    assert tensors.assemble(alone, [item]) is item
    assert tensors.split(alone, ModelReply({"y": item["x"]}, "1"), 1) == [{"y": item["x"]}]
