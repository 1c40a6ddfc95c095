"""Write a served network as ONNX with a free batch dimension."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
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
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")
