"""EfficientNet-Lite0 as a Triton model in int8, and photographs to show it.

The network is that of `examples.requests`, the photographs are those that the plants example uses;
none is committed. What is made of them is kept in `.cache`.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from examples.plants.materials import ensure_materials
from examples.requests.lite0 import NAME, SIDE, graph, weights

Array = npt.NDArray[Any]

CACHE = Path(".cache/efficientnet-lite0-v1.onnx")

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
    onnx.save(graph(weights(work)), plain)
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
