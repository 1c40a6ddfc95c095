"""Write a served network as ONNX with a free batch dimension and weights of half the size."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

REPOSITORY = Path("triton_models")


def export(served: nn.Module, shape: tuple[int, ...], outputs: list[str], path: Path) -> None:
    """Export a network whose one input is ``image``, uint8.

    Args:
        served: The network.
        shape: Of one item.
        outputs: Names of the outputs.
        path: The file; its folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    free = {name: {0: "batch"} for name in ["image", *outputs]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own age
        torch.onnx.export(
            served.eval(),
            (torch.randint(0, 255, (2, *shape), dtype=torch.uint8),),
            str(path),
            input_names=["image"],
            output_names=outputs,
            dynamic_axes=free,
            opset_version=17,
            dynamo=False,
        )
    halve(path)
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


def halve(path: Path) -> None:
    """Store the large weights of a model as float16, cast to float32 in the graph.

    The runtime folds the casts when it loads the model, so it computes, as before, in float32.
    """
    model = onnx.load(path)
    weights = {w.name: w for w in model.graph.initializer}
    casts = []
    for name, weight in weights.items():
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < 256:
            continue
        half = numpy_helper.from_array(values.astype(np.float16), f"{name}.half")
        weight.CopyFrom(half)
        casts.append(onnx.helper.make_node("Cast", [half.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, path)
