"""EfficientNet-Lite0 as a Triton model in int8, and photographs to show it.

The network is that of `examples.requests`, the photographs are those that the plants example uses;
none is committed. What is made of them is kept in `.cache`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from examples.madeonce import made_once
from examples.mlwatch.int8 import quantize
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
        MaterialsError: the package could not be downloaded.
        Disagrees: int8 says something else than float32.
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


def _quantized(cache: Path) -> Path:
    def make(work: Path) -> Path:
        import onnx

        plain, small = work / "float32.onnx", work / "int8.onnx"
        onnx.save(graph(weights(work)), plain)
        shown = photographs(120, SIDE, SIDE, seed=1)
        quantize(plain, small, shown, np.stack(photographs(52, SIDE, SIDE, seed=2)))
        return small

    return made_once(cache, make)
