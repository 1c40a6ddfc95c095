"""Packed models: folders for Triton out of a Python class, TorchScript, MLflow or ONNX.

A packed model runs in a process of its own, with a Python and libraries of its own, so that two
with conflicting requirements serve side by side.

`runtime/` is what serves one, of which a copy lies in each version: the process of the model and
its parent's side, the environment, the side of Triton's Python backend.

`PackedProcess` serves the version in a folder, from any server: see `runtime/process.py`.
"""

from mqinfer.packed.runtime.process import (
    PackedDied,
    PackedError,
    PackedProcess,
    PackedRejected,
)

__all__ = ["PackedDied", "PackedError", "PackedProcess", "PackedRejected"]
