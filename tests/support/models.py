"""Tiny ONNX models, written into repositories that a tritonserver serves."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

# What Triton calls some of ONNX's types; the others have one name in both.
_TYPES = {"FLOAT": "FP32", "FLOAT16": "FP16", "DOUBLE": "FP64"}


def tensor(name: str, kind: int, shape: list[Any]) -> onnx.ValueInfoProto:
    """An input or output: its ONNX type, and its shape with a word where any size goes."""
    return helper.make_tensor_value_info(name, kind, shape)


def graph(
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    **constants: list[float] | list[int],
) -> onnx.GraphProto:
    """A model; its constants are vectors of INT64, or of FLOAT."""
    made = []
    for label, values in constants.items():
        kind = TensorProto.INT64 if isinstance(values[0], int) else TensorProto.FLOAT
        made.append(helper.make_tensor(label, kind, [len(values)], values))
    return helper.make_graph(nodes, name, inputs, outputs, made)


def config(
    inputs: Iterable[onnx.ValueInfoProto],
    outputs: Iterable[onnx.ValueInfoProto],
    *,
    batch: int,
    backend: str = "onnxruntime",
    more: str = "",
) -> str:
    """The config.pbtxt of a model with these tensors.

    Args:
        inputs: of the model.
        outputs: of it.
        batch: the largest one; 0 for a model that takes none. Else the first side is the batch's.
        backend: Triton's name of what runs it.
        more: text for the end.
    """
    lines = [f'backend: "{backend}"', f"max_batch_size: {batch}"]
    for way, tensors in (("input", inputs), ("output", outputs)):
        for one in tensors:
            found = one.type.tensor_type
            sides = found.shape.dim[1:] if batch else found.shape.dim
            dims = ", ".join(str(side.dim_value or -1) for side in sides)
            kind = TensorProto.DataType.Name(found.elem_type)
            kind = f"TYPE_{_TYPES.get(kind, kind)}"
            lines.append(f'{way} [ {{ name: "{one.name}" data_type: {kind} dims: [ {dims} ] }} ]')
    # A process a model: each more is started with the server, and ended with it.
    lines += ["version_policy: { all {} }", "instance_group [ { kind: KIND_CPU count: 1 } ]", more]
    return "\n".join(lines) + "\n"


def save(
    root: Path, version: str, made: onnx.GraphProto, *, batch: int = 16, more: str = ""
) -> None:
    """Write a version of a model, which has the graph's name, into a repository.

    Args:
        root: the repository, in a folder where a part may lie beside it.
        version: its number.
        made: the model.
        batch: see `config`.
        more: see `config`.
    """
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    folder = root / made.name
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "config.pbtxt").exists():
        text = config(made.input, made.output, batch=batch, more=more)
        (folder / "config.pbtxt").write_text(text)
    # A server that looks meanwhile must never see half a version.
    part = Path(tempfile.mkdtemp(dir=root.parent))
    onnx.save(model, part / "model.onnx")
    part.rename(folder / version)


def save_table(
    root: Path, version: str, factor: float, name: str = "table", *, entries: int = 100
) -> None:
    """value = factor * index, for an index below `entries`; any other fails the whole request."""
    nodes = [helper.make_node("Gather", ["values", "index"], ["value"])]
    asked = [tensor("index", TensorProto.INT64, ["n", 1])]
    told = [tensor("value", TensorProto.FLOAT, ["n", 1])]
    values = [factor * index for index in range(entries)]
    save(root, version, graph(name, nodes, asked, told, values=values))


def save_echo(root: Path, name: str, kind: int, shape: list[Any], *, batch: int = 8) -> None:
    """out = in, of any type and shape."""
    nodes = [helper.make_node("Identity", ["in"], ["out"])]
    made = graph(name, nodes, [tensor("in", kind, shape)], [tensor("out", kind, shape)])
    save(root, "1", made, batch=batch)


def save_affine(root: Path, name: str) -> None:
    """y = 2 x + 1."""
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["doubled"]),
        helper.make_node("Add", ["doubled", "one"], ["y"]),
    ]
    x, y = (tensor(label, TensorProto.FLOAT, ["n", 1]) for label in "xy")
    save(root, "1", graph(name, nodes, [x], [y], two=[2.0], one=[1.0]), batch=64)


def save_picky(root: Path, name: str) -> None:
    """y = x for items that are two wide; Triton takes any width, and the model refuses it."""
    nodes = [helper.make_node("Add", ["x", "zeros"], ["y"])]
    x, y = tensor("x", TensorProto.FLOAT, ["n", "w"]), tensor("y", TensorProto.FLOAT, ["n", 2])
    save(root, "1", graph(name, nodes, [x], [y], zeros=[0.0, 0.0]))


def save_scale(root: Path, version: str, factor: float, more: str = "") -> None:
    """The model `scale`: y = factor * x for items that are two wide, and the rows of the run."""
    nodes = [
        helper.make_node("Mul", ["x", "zero"], ["zeros_like_x"]),
        helper.make_node("Reshape", ["x", "two"], ["pairs"]),
        helper.make_node("Mul", ["pairs", "factor"], ["scaled"]),
        # Fails for items that are not two wide, as the rows then differ.
        helper.make_node("Add", ["scaled", "zeros_like_x"], ["y"]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "from", "to"], ["count"]),
        helper.make_node("Shape", ["x"], ["all"], end=1),
        helper.make_node("Concat", ["all", "to"], ["wide"], axis=0),
        helper.make_node("Expand", ["count", "wide"], ["rows"]),
    ]
    outputs = [
        tensor("y", TensorProto.FLOAT, ["n", 2]),
        tensor("rows", TensorProto.INT64, ["n", 1]),
    ]
    constants: dict[str, Any] = {
        "two": [-1, 2], "factor": [factor], "zero": [0.0], "from": [0], "to": [1]
    }  # fmt: skip
    x = tensor("x", TensorProto.FLOAT, ["n", "w"])
    save(root, version, graph("scale", nodes, [x], outputs, **constants), batch=64, more=more)


def save_rounds(root: Path, name: str, *, batch: int = 8, more: str = "") -> None:
    """out = rounds, after so many of them: a hundred thousand take about a second."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["goes on"]),
            helper.make_node("Sin", ["before"], ["after"]),
        ],
        "round",
        [
            tensor("round", TensorProto.INT64, []),
            tensor("going", TensorProto.BOOL, []),
            tensor("before", TensorProto.FLOAT, [1]),
        ],
        [tensor("goes on", TensorProto.BOOL, []), tensor("after", TensorProto.FLOAT, [1])],
    )
    nodes = [
        helper.make_node("ReduceMax", ["rounds"], ["most"], keepdims=0),
        helper.make_node("Loop", ["most", "", "start"], ["end"], body=body),
        helper.make_node("Mul", ["end", "zero"], ["nothing"]),
        helper.make_node("Cast", ["nothing"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Add", ["rounds", "whole"], ["out"]),
    ]
    asked, told = (tensor(side, TensorProto.INT64, ["n", 1]) for side in ("rounds", "out"))
    made = graph(name, nodes, [asked], [told], start=[1.0], zero=[0.0])
    save(root, "1", made, batch=batch, more=more)
