"""Our own inference server as a part of the stack: in the place of Triton, with its addresses."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Mapping
from typing import Literal

from mqinfer.stack.errors import StackConfigurationError
from mqinfer.stack.triton import TritonServer, huge_pages

InferenceKind = Literal["auto", "triton", "onnx"]


class InferenceServer(TritonServer):
    """A process of ours that serves a model repository as Triton would.

    It has Triton's arguments, addresses and calls, but for `extra_arguments`, of which it has none;
    its version is that of ONNX Runtime.
    """

    name = "the inference server"
    label = "our own inference server"

    def check(self) -> None:
        """Refuse what cannot work before anything is started.

        Raises:
            StackConfigurationError: ONNX Runtime is not installed, or the model repository is not
                there.
        """
        if importlib.util.find_spec("onnxruntime") is None:
            raise StackConfigurationError(
                "our own inference server needs the package onnxruntime: pip install onnxruntime, "
                "or use a Triton of your own with MQINFER_TRITON_URL and start the stack with "
                "--no-triton"
            )
        self._check_models()
        self.version = importlib.metadata.version("onnxruntime")

    def _assemble(self) -> None:
        """It needs nothing."""

    def leftovers(self) -> str:
        """Nothing is left of it: what its processes share has no name."""
        return ""

    def environment(self) -> Mapping[str, str]:
        """Let it start processes as it likes: gRPC looks after forks, which those are not."""
        return {"PYTHONUNBUFFERED": "1", "GRPC_ENABLE_FORK_SUPPORT": "false", **huge_pages()}

    def command(self) -> list[str]:
        """Give the command line; who looks for changes is the stack, as for Triton."""
        return [
            *(sys.executable, "-m", "mqinfer.stack.inferenceserver"),
            f"--models={self.models.resolve()}",
            f"--grpc-port={self.grpc_port}",
            f"--http-port={self.http_port}",
            *(() if self.metrics_port is None else (f"--metrics-port={self.metrics_port}",)),
            f"--model-control={'none' if self.model_control == 'none' else 'explicit'}",
            f"--exit-timeout={self.exit_timeout}",
        ]
