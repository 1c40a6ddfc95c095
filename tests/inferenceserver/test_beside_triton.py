"""Our server beside the embedded Triton on one repository: equal answers, equal refusals."""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor

from mqinfer.adapters.triton import TritonClient
from mqinfer.stack import InferenceServer, TritonServer
from tests.support.models import graph, save, save_echo, save_scale, save_table, tensor

pytestmark = pytest.mark.triton

TYPES = {
    "bool": TensorProto.BOOL,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "object": TensorProto.STRING,
}
GATHERS = "dynamic_batching { max_queue_delay_microseconds: 100000 }"


def save_layers(root: Path) -> None:
    """Numbers that are summed in an order of somebody's choice: two layers of a network."""
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=shape).astype(np.float32) for shape in ((24, 64), (64, 10))]
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"]),
        helper.make_node("Tanh", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "second"], ["c"]),
        helper.make_node("Softmax", ["c"], ["y"]),
    ]
    x, y = tensor("x", TensorProto.FLOAT, ["n", 24]), tensor("y", TensorProto.FLOAT, ["n", 10])
    made = graph("layers", nodes, [x], [y])
    for name, values in zip(("first", "second"), weights, strict=True):
        made.initializer.append(
            helper.make_tensor(name, TensorProto.FLOAT, values.shape, values.ravel().tolist())
        )
    save(root, "1", made, batch=64, more=GATHERS)


def save_pair(root: Path) -> None:
    """c = a + b, d = a - b."""
    nodes = [
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Sub", ["a", "b"], ["d"]),
    ]
    a, b, c, d = (tensor(label, TensorProto.FLOAT, ["n", 2]) for label in "abcd")
    save(root, "1", graph("pair", nodes, [a, b], [c, d]), batch=4)


def save_single(root: Path) -> None:
    """y = 2 x for items of one value without a side of their own, which have one on the way."""
    nodes = [helper.make_node("Mul", ["x", "two"], ["y"])]
    x, y = (tensor(label, TensorProto.FLOAT, ["n"]) for label in "xy")
    save(root, "1", graph("single", nodes, [x], [y], two=[2.0]), batch=8)
    one = "data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] }"
    (root / "single" / "config.pbtxt").write_text(
        'backend: "onnxruntime"\nmax_batch_size: 8\n'
        "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
        f'input [ {{ name: "x" {one} }} ]\noutput [ {{ name: "y" {one} }} ]\n'
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository") / "models"
    root.mkdir()
    for name, kind in TYPES.items():
        save_echo(root, name, kind, ["n", "w"])
    save_echo(root, "flags", TensorProto.BOOL, ["a", "b"], batch=0)
    save_table(root, "1", 1.0)
    save_table(root, "2", 10.0)
    save_scale(root, "1", 2.0, GATHERS)
    save_layers(root)
    save_pair(root)
    save_single(root)
    for version in ("3", "12"):
        save_table(root, version, float(version), "latest")
    config = root / "latest" / "config.pbtxt"
    config.write_text(config.read_text().replace("version_policy: { all {} }", ""))
    save_echo(root, "bare", TensorProto.FLOAT, ["n", 3])
    (root / "bare" / "config.pbtxt").unlink()
    for name, folders in (("broken", ("1",)), ("empty", ())):
        (root / name).mkdir()
        (root / name / "config.pbtxt").write_text((root / "table" / "config.pbtxt").read_text())
        for folder in folders:
            (root / name / folder).mkdir()
            (root / name / folder / "model.onnx").write_bytes(b"no model")
    return root


class Both:
    """The same call to both servers."""

    def __init__(self, triton: TritonServer, ours: InferenceServer):
        self._channels = [grpc.insecure_channel(one.url) for one in (triton, ours)]
        self._stubs = [service_pb2_grpc.GRPCInferenceServiceStub(one) for one in self._channels]

    def ask(self, method: str, request: Any) -> list[Any]:
        """What Triton answers, and what we do: a message, or the code and words of an error."""
        return [self._one(getattr(stub, method), request) for stub in self._stubs]

    def _one(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=60)
        except grpc.RpcError as error:
            return error.code(), error.details()

    def stream(self, *requests: Any) -> list[Any]:
        return [list(stub.ModelStreamInfer(iter(requests), timeout=60)) for stub in self._stubs]

    def close(self) -> None:
        for channel in self._channels:
            channel.close()


@pytest.fixture
def both(triton: TritonServer, ours: InferenceServer) -> Iterator[Both]:
    both = Both(triton, ours)
    yield both
    both.close()


@pytest_asyncio.fixture
async def clients(
    triton: TritonServer, ours: InferenceServer
) -> AsyncIterator[tuple[TritonClient, TritonClient]]:
    clients = TritonClient(triton.url), TritonClient(ours.url)
    yield clients
    for client in clients:
        await client.close()


def inference(model: str, *inputs: tuple[str, Any], **more: Any) -> Any:
    request = pb.ModelInferRequest(model_name=model, **more)
    for name, array in inputs:
        request.inputs.add(name=name, datatype=np_to_triton_dtype(array.dtype), shape=array.shape)
        raw = serialize_byte_tensor(array) if array.dtype == object else array
        request.raw_input_contents.append(raw.tobytes() if raw.dtype != object else raw.item())
    return request


@st.composite
def arrays(draw: st.DrawFn) -> tuple[str, Any]:
    name = draw(st.sampled_from(sorted(TYPES)))
    shape = (draw(st.integers(1, 8)), draw(st.integers(1, 5)))
    size = math.prod(shape)
    if name == "object":
        texts = draw(st.lists(st.text(max_size=6), min_size=size, max_size=size))
        array = np.empty(size, object)
        array[:] = [text.encode() for text in texts]
        return name, array.reshape(shape)
    dtype = np.dtype(name)
    raw = draw(st.binary(min_size=size * dtype.itemsize, max_size=size * dtype.itemsize))
    array = np.frombuffer(raw, np.uint8)
    array = (array & 1).astype(bool) if name == "bool" else array.view(dtype)
    return name, array.reshape(shape)


@given(case=arrays())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_type_and_shape_comes_back_bit_for_bit(both: Both, case: tuple[str, Any]) -> None:
    name, array = case
    theirs, our = both.ask("ModelInfer", inference(name, ("in", array)))
    assert our == theirs
    assert isinstance(our, pb.ModelInferResponse)


@given(rows=st.lists(st.integers(1, 9), min_size=1, max_size=12), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sums_are_equal_to_the_last_bit(both: Both, rows: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    for count in rows:
        x = rng.normal(size=(count, 24)).astype(np.float32)
        theirs, our = both.ask("ModelInfer", inference("layers", ("x", x)))
        assert our == theirs


def typed(model: str, datatype: str, shape: list[int], field: str, values: list[Any]) -> Any:
    request = pb.ModelInferRequest(model_name=model)
    getattr(request.inputs.add(name="in", datatype=datatype, shape=shape).contents, field).extend(
        values
    )
    return request


@pytest.mark.parametrize(
    ("model", "datatype", "field", "values"),
    [
        ("bool", "BOOL", "bool_contents", [True, False]),
        ("int8", "INT8", "int_contents", [-128, 127]),
        ("int16", "INT16", "int_contents", [-300, 300]),
        ("int32", "INT32", "int_contents", [-(2**31), 7]),
        ("int64", "INT64", "int64_contents", [-(2**63), 7]),
        ("uint8", "UINT8", "uint_contents", [0, 255]),
        ("uint16", "UINT16", "uint_contents", [0, 65535]),
        ("uint32", "UINT32", "uint_contents", [0, 2**32 - 1]),
        ("uint64", "UINT64", "uint64_contents", [0, 2**64 - 1]),
        ("float32", "FP32", "fp32_contents", [1.5, math.inf]),
        ("float64", "FP64", "fp64_contents", [1.5, 1e300]),
        ("object", "BYTES", "bytes_contents", [b"a", b""]),
        # Refused:
        ("float16", "FP16", "fp32_contents", [1.5, 2.5]),
        ("int32", "INT32", "fp32_contents", [1.5, 2.5]),
        ("int32", "INT32", "int_contents", [1]),
        ("object", "BYTES", "bytes_contents", [b"a"]),
        ("int32", "INT32", "int_contents", []),
    ],
)
def test_typed_contents(
    both: Both, model: str, datatype: str, field: str, values: list[Any]
) -> None:
    theirs, our = both.ask("ModelInfer", typed(model, datatype, [1, 2], field, values))
    assert our == theirs


INDEX = np.array([[3]])
RAW = {"raw_input_contents": [INDEX.tobytes()]}


def bare(*shape: int, model: str = "table", datatype: str = "INT64", **more: Any) -> Any:
    """A request whose declarations are as they are said."""
    request = pb.ModelInferRequest(model_name=model, **more)
    request.inputs.add(name="index" if model == "table" else "in", datatype=datatype, shape=shape)
    return request


def wanting(*outputs: str) -> Any:
    request = inference("table", ("index", INDEX))
    for name in outputs:
        request.outputs.add(name=name)
    return request


ONES = np.ones((1, 2), np.float32)
REQUESTS = {
    "plain": inference("table", ("index", INDEX), id="abc"),
    "an older version": inference("table", ("index", INDEX), model_version="1"),
    "a version with a zero": inference("table", ("index", INDEX), model_version="01"),
    "the latest of a policy": inference("latest", ("index", INDEX)),
    "an unknown model": inference("absent", ("index", INDEX)),
    "an unknown version": inference("table", ("index", INDEX), model_version="9"),
    "a version that the policy leaves out": inference(
        "latest", ("index", INDEX), model_version="3"
    ),
    "a version that is no number": inference("table", ("index", INDEX), model_version="x"),
    "a negative version": inference("table", ("index", INDEX), model_version="-1"),
    "no model": inference("", ("index", INDEX)),
    "a model that does not load": inference("broken", ("index", INDEX)),
    "a version that does not load": inference("broken", ("index", INDEX), model_version="1"),
    "a model without versions": inference("empty", ("index", INDEX)),
    "too wide": inference("table", ("index", np.array([[3, 4]]))),
    "too flat": inference("table", ("index", np.array([3]))),
    "too deep": inference("table", ("index", np.array([[[3]]]))),
    "without a shape": bare(**RAW),
    "nothing of it": inference("table", ("index", np.zeros((0, 1), np.int64))),
    "another type": inference("table", ("index", INDEX.astype(np.int32))),
    "no such type": bare(1, 1, datatype="INT65", **RAW),
    "no type": bare(1, 1, datatype="", **RAW),
    "another input": inference("table", ("other", INDEX)),
    "no input": inference("table"),
    "an input twice": inference("table", ("index", INDEX), ("index", INDEX)),
    "more than a batch": inference("table", ("index", np.zeros((17, 1), np.int64))),
    "bytes that are too few": bare(2, 1, **RAW),
    "bytes that are too many": bare(1, 1, raw_input_contents=[b"x" * 16]),
    "no bytes": bare(1, 1),
    "bytes too many times": bare(1, 1, raw_input_contents=[INDEX.tobytes(), b"x"]),
    "what the model refuses": inference("table", ("index", np.array([[500]]))),
    "an unknown output": wanting("nothing"),
    "an output": wanting("value"),
    "an output twice": wanting("value", "value"),
    "inputs in another order": inference("pair", ("b", ONES), ("a", 2 * ONES)),
    "one input of two": inference("pair", ("a", ONES)),
    "batches that differ": inference("pair", ("a", ONES), ("b", np.ones((2, 2), np.float32))),
    "a model without batches": inference("flags", ("in", np.ones((2, 3), bool))),
    "nothing without batches": inference("flags", ("in", np.ones((0, 3), bool))),
    "another shape without batches": inference("flags", ("in", np.ones(3, bool))),
    "single values": inference("single", ("x", np.arange(3, dtype=np.float32)[:, None])),
    "two outputs": inference("scale", ("x", ONES)),
    "strings too few": bare(
        1, 2, model="object", datatype="BYTES", raw_input_contents=[b"\1\0\0\0a"]
    ),
    "strings too many": bare(
        1, 1, model="object", datatype="BYTES", raw_input_contents=[b"\1\0\0\0a\1\0\0\0b"]
    ),
    "no text": bare(1, 1, model="object", datatype="BYTES", raw_input_contents=[b"\1\0\0\0\xff"]),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_have_the_same_answer_or_the_same_refusal(both: Both, name: str) -> None:
    theirs, our = both.ask("ModelInfer", REQUESTS[name])
    assert our == theirs


def test_what_has_an_answer_of_our_own_is_refused_with_the_same_code(both: Both) -> None:
    """Texts that tell less than ours, or that come from elsewhere."""
    for request in (
        bare(-1, 1, **RAW),
        inference("table", ("index", INDEX), ("other", INDEX)),
        bare(1, 1, model="object", datatype="BYTES", raw_input_contents=[b"\1\0"]),
        bare(1, 1, model="object", datatype="BYTES", raw_input_contents=[b"\7\0\0\0a"]),
    ):
        theirs, our = both.ask("ModelInfer", request)
        assert our[0] == theirs[0] == grpc.StatusCode.INVALID_ARGUMENT


NAMES = [
    ("table", ""),
    ("table", "1"),
    ("table", "9"),
    ("table", "x"),
    ("latest", ""),
    ("absent", ""),
    ("broken", ""),
    ("broken", "1"),
    ("empty", ""),
    ("flags", ""),
    ("object", ""),
    ("single", ""),
    ("bare", ""),
]


@pytest.mark.parametrize(("name", "version"), NAMES)
def test_questions_about_models(both: Both, name: str, version: str) -> None:
    for kind in ("Ready", "Metadata"):
        request = getattr(pb, f"Model{kind}Request")(name=name, version=version)
        theirs, our = both.ask(f"Model{kind}", request)
        assert our == theirs
    theirs, our = both.ask("ModelConfig", pb.ModelConfigRequest(name=name, version=version))
    for answer in (theirs, our):
        if isinstance(answer, pb.ModelConfigResponse):
            assert answer.config.HasField("dynamic_batching") == (name == "bare")
            for field in ("optimization", "runtime", "dynamic_batching"):
                answer.config.ClearField(field)
    assert our == theirs


def test_the_index(both: Both) -> None:
    theirs, our = both.ask("RepositoryIndex", pb.RepositoryIndexRequest(ready=True))
    assert our == theirs
    theirs, our = both.ask("RepositoryIndex", pb.RepositoryIndexRequest())
    assert {(one.name, one.version, one.state) for one in theirs.models} <= {
        (one.name, one.version, one.state) for one in our.models
    }
    reasons = {(one.name, one.version): one.reason for one in our.models}
    assert "no whole ONNX model" in reasons["broken", "1"]
    assert "at least one version must be available" in reasons["empty", ""]


@pytest.mark.parametrize("name", ["absent", "broken", "empty", "table"])
def test_loading(both: Both, name: str) -> None:
    theirs, our = both.ask("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name=name))
    if isinstance(theirs, tuple):
        assert our[0] == theirs[0]
        assert our[1].startswith(theirs[1].split(" state: ")[0].rstrip())
    else:
        assert our == theirs


def test_streams_have_an_answer_for_each_request_in_order(both: Both) -> None:
    theirs, our = both.stream(
        *(
            inference("table", ("index", np.array([[number]])), id=str(number))
            for number in range(9)
        ),
        REQUESTS["another type"],
        REQUESTS["an unknown model"],
        REQUESTS["what the model refuses"],
        inference("table", ("index", INDEX)),
    )
    assert our == theirs
    assert len(our) == 13


async def test_batches_of_several_requests_are_equal_to_the_last_bit(
    clients: tuple[TritonClient, TritonClient],
) -> None:
    """Whatever went together on one of them."""
    rng = np.random.default_rng(3)
    inputs = [rng.normal(size=(count, 24)).astype(np.float32) for count in (1, 2, 3, 1, 5, 1) * 5]
    answers = [
        await asyncio.gather(*(client.infer("layers", None, {"x": x}, timeout=60) for x in inputs))
        for client in clients
    ]
    for theirs, our in zip(*answers, strict=True):
        np.testing.assert_allclose(our.outputs["y"], theirs.outputs["y"], rtol=1e-6)


def test_shared_memory_is_refused(both: Both) -> None:
    request = bare(1, 1)
    request.inputs[0].parameters["shared_memory_region"].string_param = "x"
    request.inputs[0].parameters["shared_memory_byte_size"].int64_param = 8
    theirs, our = both.ask("ModelInfer", request)
    assert our == theirs
    for kind in ("System", "Cuda"):
        status = getattr(pb, f"{kind}SharedMemoryStatusRequest")
        theirs, our = both.ask(f"{kind}SharedMemoryStatus", status())
        assert our == theirs
        theirs, our = both.ask(f"{kind}SharedMemoryStatus", status(name="x"))
        assert our[0] == theirs[0]
        register = getattr(pb, f"{kind}SharedMemoryRegisterRequest")
        _, our = both.ask(f"{kind}SharedMemoryRegister", register(name="x"))
        assert our[0] == grpc.StatusCode.UNIMPLEMENTED
