"""What is written for Triton is what its own client writes, and each tensor is copied once."""

import asyncio
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import InferInput, service_pb2
from tritonclient.utils import np_to_triton_dtype

from mqinfer.adapters import tritonwire
from mqinfer.inference import tensors
from mqinfer.inference.inference import Inference
from mqinfer.model import Model
from mqinfer.ports import ModelInfo, ModelReply, TensorInfo
from tests.support.inference import Server

UINT8 = np.dtype(np.uint8)
INFO = ModelInfo("m", ("1",), (), (), max_batch_size=32)
KINDS = ("?", "u1", "i2", "i8", "u8", "f2", "f4", "f8", "O")


def written(inputs: Any) -> Any:
    return service_pb2.ModelInferRequest.FromString(b"".join(tritonwire.request("m", "3", inputs)))


def content(array: np.ndarray[Any, Any]) -> bytes:
    """By Triton's own client."""
    tensor = InferInput("x", list(array.shape), np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array)
    raw = tensor._get_content()
    assert isinstance(raw, bytes)
    return raw


@st.composite
def batches(draw: st.DrawFn) -> list[np.ndarray[Any, Any]]:
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    kind, count = draw(st.sampled_from(KINDS)), draw(st.integers(1, 5))
    random = np.random.default_rng(draw(st.integers(0, 9)))
    rows = []
    for _ in range(count):
        numbers = np.asarray(random.integers(0, 2, shape))
        row = np.asarray(numbers.astype(str), object) if kind == "O" else numbers.astype(kind)
        # As it comes from a transposed picture: not in order in memory.
        rows.append(row.copy(order="F") if draw(st.booleans()) else row)
    return rows


@given(batches())
def test_items_are_written_as_their_stack(rows: list[np.ndarray[Any, Any]]) -> None:
    inputs = tensors.assemble(INFO, [{"x": row} for row in rows])
    message, stacked = written(inputs), inputs["x"]
    assert (message.model_name, message.model_version) == ("m", "3")
    (declared,) = message.inputs
    assert tuple(declared.shape) == stacked.shape == (len(rows), *rows[0].shape)
    assert declared.datatype == np_to_triton_dtype(rows[0].dtype)
    assert list(message.raw_input_contents) == [content(stacked)]


def test_several_inputs_and_one_without_batch_dimension() -> None:
    items = [{"a": np.array([n, 7], np.int64), "b": np.array(n, np.float32)} for n in range(3)]
    message = written(tensors.assemble(INFO, items))
    assert [(one.name, list(one.shape)) for one in message.inputs] == [("a", [3, 2]), ("b", [3])]
    assert message.raw_input_contents[0] == np.array([[0, 7], [1, 7], [2, 7]]).tobytes()
    assert message.raw_input_contents[1] == np.arange(3, dtype=np.float32).tobytes()
    alone = written(tensors.assemble(replace(INFO, max_batch_size=0), items[:1]))
    assert list(alone.inputs[0].shape) == [2]


class Writing(Server):
    """Writes each request as for Triton, and notes what it has in bytes, and what that took."""

    def __init__(self, *models: ModelInfo) -> None:
        super().__init__(*models)
        self.written: list[tuple[int, int]] = []

    async def infer(
        self, model: str, version: str | None, inputs: Any, *, timeout: float | None
    ) -> ModelReply:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        size = len(b"".join(tritonwire.request(model, version, inputs)))
        self.written.append((size, tracemalloc.get_traced_memory()[1] - before))
        return ModelReply({"y": np.zeros((len(inputs.rows("image")), 1), UINT8)}, "1")


@pytest.mark.parametrize("count", [1, 8])
async def test_a_tensor_is_copied_once_from_the_handler_to_the_bytes_of_a_request(
    count: int,
) -> None:
    shape = (512, 512, 3)
    image, y = TensorInfo("image", UINT8, shape), TensorInfo("y", UINT8, (1,))
    server = Writing(ModelInfo("picture", ("1",), (image,), (y,), max_batch_size=8))
    pictures = [np.full(shape, number, UINT8) for number in range(count)]
    tracemalloc.start()
    try:
        async with Inference(server) as inference:
            asked = [inference.ask(Model("picture"), {"image": one}) for one in pictures]
            await asyncio.gather(*asked)
    finally:
        tracemalloc.stop()
    assert sum(size for size, _ in server.written) >= sum(one.nbytes for one in pictures)
    for size, taken in server.written:
        assert taken <= size + 64 * 1024  # beside its bytes their parts, and the header
