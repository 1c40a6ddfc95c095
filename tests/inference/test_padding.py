"""Items of different lengths in one request, and what comes back to each."""

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer import App
from mqinfer.errors import BadTensor, ModelError, WiringError
from mqinfer.inference import padding, tensors
from mqinfer.inference.inference import Inference
from mqinfer.model import Model, Pad, Together
from mqinfer.ports import ModelInfo, ModelReply, TensorInfo
from tests.support.inference import DOUBLE, TEXT, Server, inference_on, slots, x

I64 = np.dtype(np.int64)
READER = ModelInfo(
    "reader",
    ("1",),
    (
        TensorInfo("tokens", I64, (-1,)),
        TensorInfo("mask", np.dtype(bool), (-1,)),
        TensorInfo("kind", I64, (1,)),
    ),
    (
        TensorInfo("each", I64, (-1, 2)),
        TensorInfo("sum", I64, (1,)),
        TensorInfo("free", I64, (-1,)),
    ),
    64,
)
PAD: Pad = (("tokens", 0), ("mask", False))


def item(tokens: list[int], mask: int | None = None) -> dict[str, Any]:
    length = len(tokens) if mask is None else mask
    return {
        "tokens": np.array(tokens, np.int64),
        "mask": np.ones(length, bool),
        "kind": np.array([len(tokens)], np.int64),
    }


def read(inputs: dict[str, Any]) -> ModelReply:
    """What the model makes of a request; `free` has a length of its own."""
    tokens, mask = inputs["tokens"], inputs["mask"]
    outputs = {
        "each": np.stack([tokens, mask], axis=2),
        "sum": (tokens * mask).sum(axis=1, keepdims=True),
        "free": np.zeros((len(tokens), tokens.shape[1] + 3), np.int64),
    }
    return ModelReply(outputs, "1")


def answers(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    sent = padding.padded(items, PAD)
    reply = read(dict(tensors.assemble(READER, sent)))
    rows = tensors.split(READER, reply, len(items))
    return padding.cut(READER, items, sent, rows, PAD)


@given(st.lists(st.lists(st.integers(1, 1 << 60), max_size=40), min_size=1, max_size=12))
def test_each_item_gets_its_own(texts: list[list[int]]) -> None:
    items = [item(tokens) for tokens in texts]
    for tokens, made, answer in zip(texts, items, answers(items), strict=True):
        assert answer["each"].tolist() == [[token, 1] for token in tokens]
        assert answer["sum"].tolist() == [made["tokens"].sum()]
        # Never as long as what was sent, so it is as the model gave it.
        assert len(answer["free"]) == max(map(len, texts)) + 3
        assert made["tokens"].tolist() == tokens


@given(st.integers(0, 5000), st.integers(0, 5000))
def test_together_go_those_of_about_one_length(one: int, other: int) -> None:
    marks = [padding.signature(READER, item([1] * n), PAD) for n in (one, other)]
    if marks[0] == marks[1]:
        assert max(one, other) <= max(2 * min(one, other), 1)
    elif one and other:
        assert (
            max(one, other).bit_length() != min(one, other).bit_length()
            or min(one, other).bit_count() == 1
        )


sizes = st.tuples(st.integers(0, 9), st.integers(0, 9))


@given(st.lists(sizes, min_size=1, max_size=6))
def test_two_sides_are_cut_in_order(shapes: list[tuple[int, int]]) -> None:
    info = ModelInfo(
        "m",
        ("1",),
        (TensorInfo("image", I64, (3, -1, -1)),),
        (TensorInfo("out", I64, (-1, -1)), TensorInfo("line", I64, (-1,))),
        8,
    )
    items = [{"image": np.full((3, *shape), 7)} for shape in shapes]
    sent = padding.padded(items, (("image", 0),))
    rows = [{"out": one["image"][0], "line": np.zeros(9, np.int64)} for one in sent]
    for shape, row in zip(
        shapes, padding.cut(info, items, sent, rows, (("image", 0),)), strict=True
    ):
        assert row["out"].shape == shape
        assert (row["out"] == 7).all()
        assert row["line"].shape == (9,)


def test_where_an_output_may_follow_either_items_go_with_their_like() -> None:
    odd = item([1, 2, 3, 4, 5], mask=6)
    assert padding.signature(READER, odd, PAD) == tensors.signature(odd)
    assert padding.signature(READER, item([1] * 5), PAD) == padding.signature(
        READER, item([1] * 6), PAD
    )
    # Nothing of this model follows a length, so nothing can be cut wrongly.
    blind = replace(READER, outputs=(TensorInfo("sum", I64, (1,)),))
    assert padding.signature(blind, odd, PAD) == padding.signature(blind, item([1] * 7, 8), PAD)


def test_texts_are_filled_up_with_texts() -> None:
    info = ModelInfo("m", ("1",), (TensorInfo("words", TEXT, (-1,)),), (), 8)
    padding.require(info, (("words", ""),))
    items = [{"words": np.array(words, object)} for words in (["a", "bc"], ["d"])]
    sent = padding.padded(items, (("words", ""),))
    assert [one["words"].tolist() for one in sent] == [["a", "bc"], ["d", ""]]


@pytest.mark.parametrize(
    ("pad", "text"),
    [
        ((("token", 0),), "'token', which is no input"),
        ((("kind", 0),), "'kind', which has no variable side"),
        ((("tokens", 0.5),), "up with 0.5, which int64 cannot hold"),
        ((("tokens", 1 << 63),), "which int64 cannot hold"),
        ((("tokens", ""),), "which int64 cannot hold"),
        ((("mask", 2),), "which bool cannot hold"),
    ],
)
def test_a_declaration_that_does_not_fit_is_refused(pad: Pad, text: str) -> None:
    with pytest.raises(BadTensor, match=text):
        padding.require(READER, pad)


@pytest.mark.parametrize("options", [{"max_batch": 0}, {"max_batch": True}, {"max_batch": "8"},
                                     {"pad": {"x": None}}, {"pad": {1: 0}}])  # fmt: skip
def test_a_declaration_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(WiringError, match=r"model m: (max_batch is at least 1|pad is an input's)"):
        App("padding").model("m", **options)


# --- through inference --------------------------------------------------------------------------


async def test_lengths_go_together_and_come_back(server: Server) -> None:
    together = App("padding").model("double", pad={"x": 0.0}).target.together
    async with inference_on(server) as inference:
        server.gate.clear()
        lengths = [5, 8, 6, 5, 7, 33]
        calls = [
            asyncio.create_task(inference("double", None, {"x": x(*range(n))}, together=together))
            for n in (1, *lengths)
        ]
        await asyncio.sleep(0)
        server.gate.set()
        found = await asyncio.gather(*calls)
        assert [answer["y"].tolist() for answer in found] == [
            [2.0 * value for value in range(n)] for n in (1, *lengths)
        ]
        assert sorted(count for _, _, count in server.requests) == [1, 1, 5]
        with pytest.raises(BadTensor, match="pad names 'z'"):
            await inference("double", None, {"x": x(1)}, together=Together(pad=(("z", 0),)))


async def test_a_request_holds_no_more_than_max_batch(server: Server) -> None:
    async with Inference(server, limit=slots(1)) as inference:
        for most, expected in ((3, 3), (100, DOUBLE.max_batch_size)):
            server.requests.clear()
            calls = [
                inference("double", None, {"x": x(n)}, together=Together(max_batch=most))
                for n in range(40)
            ]
            await asyncio.gather(*calls)
            assert max(count for _, _, count in server.requests) == expected
            assert sum(count for _, _, count in server.requests) == 40


async def test_max_batch_of_a_model_that_takes_no_batch() -> None:
    server = Server(replace(DOUBLE, max_batch_size=0))
    async with inference_on(server) as inference:
        answer = await inference("double", None, {"x": x(1)}, together=Together(max_batch=4))
    assert answer["y"].tolist() == [2.0]


async def test_a_model_that_cannot_be_called_says_why() -> None:
    server = Server(replace(DOUBLE, refusal="model double keeps a state"))
    async with inference_on(server) as inference:
        with pytest.raises(ModelError, match="keeps a state"):
            await inference("double", None, {"x": x(1)})
        assert not server.requests
        assert inference.blocked([Model("double")]) == "model double keeps a state"
        assert await inference.refusal([Model("double")]) == "model double keeps a state"
