"""Configurations of ONNX models: completed from the file, or refused if it contradicts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import pytest_asyncio
from onnx import TensorProto, helper

from mqinfer.adapters.triton import TritonClient
from mqinfer.stack import TritonServer, onnxconfig
from mqinfer.testing import until
from tests.support.models import graph, tensor

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING


def model(made: onnx.GraphProto) -> bytes:
    whole = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return whole.SerializeToString()


def double(shape: list[Any], kind: int = FLOAT) -> bytes:
    """y = x + x"""
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    return model(graph("double", nodes, [tensor("x", kind, shape)], [tensor("y", kind, shape)]))


def labels() -> bytes:
    """The class and the scores of each item, as converters of scikit-learn write them."""
    nodes = [
        helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
        helper.make_node("Identity", ["x"], ["scores"]),
    ]
    outputs = [tensor("label", INT64, [None]), tensor("scores", FLOAT, [None, 3])]
    return model(graph("labels", nodes, [tensor("x", FLOAT, [None, 3])], outputs))


def total() -> bytes:
    """One value out of any number, and one value in: no batch, and no sides at all."""
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "by"], ["total"]),
    ]
    inputs = [tensor("x", FLOAT, ["n", "m"]), tensor("by", FLOAT, [])]
    return model(graph("total", nodes, inputs, [tensor("total", FLOAT, [])]))


def words() -> bytes:
    nodes = [helper.make_node("Identity", ["text"], ["same"])]
    inputs, outputs = [tensor("text", STRING, ["n", 1])], [tensor("same", STRING, ["n", 1])]
    return model(graph("words", nodes, inputs, outputs))


def zipped() -> bytes:
    """A list of dicts, which converters of scikit-learn write unless told otherwise."""
    nodes = [
        helper.make_node("ZipMap", ["x"], ["p"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2])
    ]
    floats = helper.make_tensor_type_proto(FLOAT, [])
    out = helper.make_value_info(
        "p", helper.make_sequence_type_proto(helper.make_map_type_proto(INT64, floats))
    )
    made = graph("zipped", nodes, [tensor("x", FLOAT, [None, 3])], [out])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString()


def brain() -> bytes:
    """Numbers of a type that Triton does not have for ONNX."""
    kind = TensorProto.BFLOAT16
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    return model(graph("brain", nodes, [tensor("x", kind, ["n"])], [tensor("y", kind, ["n"])]))


def x(dims: list[int], kind: str = "TYPE_FP32", **more: Any) -> dict[str, Any]:
    return {"name": "x", "data_type": kind, "dims": dims, **more}


def y(dims: list[int], kind: str = "TYPE_FP32", **more: Any) -> dict[str, Any]:
    return x(dims, kind, **more) | {"name": "y"}


def loaded(config: dict[str, Any], content: bytes) -> dict[str, Any]:
    """The configuration with which a server would load the model."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    done = onnxconfig.complete({"name": "m", **config}, session)
    onnxconfig.require(done, session)
    return done


@pytest.mark.parametrize(
    ("written", "content", "batch", "gathered", "inputs", "outputs"),
    [
        ({}, double(["n", 4]), 4, True, [x([4])], [y([4])]),
        ({}, double(["n", "m", 3]), 4, True, [x([-1, 3])], [y([-1, 3])]),
        ({"max_batch_size": 32}, double(["n", 4]), 32, True, [x([4])], [y([4])]),
        ({"max_batch_size": 1}, double(["n", 4]), 1, False, [x([4])], [y([4])]),
        ({}, double([2, 4]), 0, False, [x([2, 4])], [y([2, 4])]),
        ({}, double(["n"]), 4, True, [x([1], reshape={"shape": []})],
         [y([1], reshape={"shape": []})]),
        ({"input": [x([4])]}, double(["n", 4]), 4, True, [x([4])], [y([4])]),
        ({"output": [y(["4"])], "max_batch_size": "8"}, double(["n", 4]), 8, True, [x([4])],
         [y(["4"])]),
        # All is written, and stays so: no batches.
        ({"input": [x([-1, 4])], "output": [y([-1, 4])]}, double(["n", 4]), 0, False,
         [x([-1, 4])], [y([-1, 4])]),
        # An input may be narrower than the model's.
        ({"input": [x([3])], "max_batch_size": 2}, double(["n", "m"]), 2, True, [x([3])],
         [y([-1])]),
    ],
)  # fmt: skip
def test_what_is_left_out_is_the_files(
    written: dict[str, Any],
    content: bytes,
    batch: int,
    gathered: bool,
    inputs: list[Any],
    outputs: list[Any],
) -> None:
    before = str(written)
    done = loaded(written, content)
    assert int(done.get("max_batch_size", 0)) == batch
    assert ("dynamic_batching" in done) == gathered
    assert (done["input"], done["output"]) == (inputs, outputs)
    assert str(written) == before


def test_a_scheduler_that_was_chosen_stays() -> None:
    chosen = {"dynamic_batching": {"max_queue_delay_microseconds": 5}}
    assert loaded(chosen, double(["n", 4]))["dynamic_batching"] == chosen["dynamic_batching"]
    assert "dynamic_batching" not in loaded({"sequence_batching": {}}, double(["n", 4]))


@pytest.mark.parametrize(
    ("written", "content", "reason"),
    [
        ({"max_batch_size": 8}, double([2, 4]), r"takes no batches.*size is 8.*x \[2, 4\]"),
        ({"max_batch_size": 8, "input": [x([4])], "output": [y([4])]}, double([2, 4]),
         r"input 'x': with max_batch_size 8 the first side must be open.*\[2, 4\]"),
        ({"input": [x([5])]}, double(["n", 4]), r"input 'x': .*\[-1, 5\].*batch's.*\[-1, 4\]"),
        ({"input": [x([4, 1])]}, double(["n", 4]), r"input 'x': .*\[-1, 4, 1\]"),
        ({"output": [y([-1])]}, double(["n", 4]), r"output 'y': .*\[-1, -1\].*same"),
        ({"output": [y([4])]}, double(["n", "m"]), r"output 'y': .*must be the same"),
        ({"input": [x([4], "TYPE_FP64")]}, double(["n", 4]), "says TYPE_FP64, the model TYPE_FP32"),
        ({"output": [y([4], "TYPE_INT8")]}, double(["n", 4]), "output 'y': .*TYPE_INT8"),
        ({"output": [{"name": "y", "dims": [4]}]}, double(["n", 4]), "TYPE_INVALID"),
        ({"input": [x([4]) | {"name": "image"}]}, double(["n", 4]), "no input 'image'; it has 'x'"),
        ({"output": [y([4]) | {"name": "z"}]}, double(["n", 4]), "no output 'z'; it has 'y'"),
        ({"input": [x([-1, -1])]}, total(), "1 inputs .*'x'.*wants 2 .*'x', 'by'"),
        ({"input": [x([3]), x([3])]}, double(["n", 3]), "has 2 inputs"),
        ({"input": [x([4], optional=True)]}, double(["n", 4]), "optional"),
        ({}, zipped(), r"'p' is a seq\(map.*zipmap=False"),
        ({}, brain(), r"'x' is a tensor\(bfloat16\)"),
    ],
)  # fmt: skip
def test_what_the_file_contradicts_is_refused(
    written: dict[str, Any], content: bytes, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        loaded(written, content)


# --- in Triton -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    one = "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
    save(root, "bare", double(["n", 4]), None)
    save(root, "labels", labels(), one)
    save(root, "total", total(), one)
    save(root, "words", words(), one + "max_batch_size: 8")
    save(root, "narrow", double(["n", 4]), one + 'input { name: "x" data_type: TYPE_FP32 dims: 5 }')
    save(root, "zipped", zipped(), one)
    return root


def save(root: Path, name: str, content: bytes, config: str | None) -> None:
    (root / name / "1").mkdir(parents=True)
    (root / name / "1" / "model.onnx").write_bytes(content)
    if config is not None:
        (root / name / "config.pbtxt").write_text(config)


@pytest_asyncio.fixture
async def client(triton: TritonServer) -> Any:
    client = TritonClient(triton.url)
    yield client
    await client.close()


async def test_folders_without_a_configuration_answer(
    triton: TritonServer, client: TritonClient, repository: Path
) -> None:
    info = await client.describe("bare")
    assert (info.max_batch_size, info.inputs[0].shape, info.outputs[0].shape) == (4, (4,), (4,))
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    reply = await client.infer("bare", None, {"x": rows}, timeout=60)
    assert reply.outputs["y"].tolist() == (2 * rows).tolist()

    # One value an item, without a side of its own: Triton has one for it.
    info = await client.describe("labels")
    assert {one.name: one.shape for one in info.outputs} == {"label": (1,), "scores": (3,)}
    scores = np.array([[0, 0, 1], [1, 0, 0]], np.float32)
    reply = await client.infer("labels", None, {"x": scores}, timeout=60)
    assert reply.outputs["label"].tolist() == [[2], [0]]
    assert reply.outputs["scores"].tolist() == scores.tolist()

    assert (await client.describe("total")).max_batch_size == 0
    feed = {"x": np.ones((2, 3), np.float32), "by": np.array([2], np.float32)}
    assert (await client.infer("total", None, feed, timeout=60)).outputs["total"].tolist() == [12]

    text = np.array([["a"], ["ü"]], object)
    reply = await client.infer("words", None, {"text": text}, timeout=60)
    assert [one.decode() for one in reply.outputs["same"].ravel()] == ["a", "ü"]
    # The user's folder stays as it is.
    assert [path.name for path in (repository / "bare").iterdir()] == ["1"]


async def test_the_index_says_why_a_model_did_not_load(triton: TritonServer) -> None:
    async def reasons() -> dict[str, str] | None:
        states = {one.name: one.reason for one in await triton.model_states()}
        return states if states["narrow"] and states["zipped"] else None

    found = await until(reasons, "the reasons")
    assert "input 'x': the configuration says [-1, 5]" in found["narrow"]
    assert "zipmap=False" in found["zipped"]
