"""A packed model under Triton's Python backend; the copy in a version's folder is what it runs.

The model itself runs in a process of its own (see `packed_runtime/process.py`). When that dies,
this one ends, too: Triton then says of each call that the model's process is not healthy, and
whoever may loads the model anew.
"""

import os
import sys
from pathlib import Path
from typing import Any

# The stub's interpreter starts isolated: it does not look at PYTHONPATH by itself.
paths = os.environ.get("PYTHONPATH", "").split(":")
sys.path[:0] = [str(Path(__file__).parent), *(path for path in paths if path)]

import numpy as np  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402
from packed_runtime.process import PackedDied, PackedError, PackedProcess  # noqa: E402
from packed_runtime.together import run_together  # noqa: E402


class TritonPythonModel:
    """One instance of one version of one model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Make the model's environment if it is not there, and load the model in it."""
        folder = Path(args["model_repository"]) / args["model_version"]
        self.process = PackedProcess(folder, name=args["model_name"])
        try:
            self.process.start()
        except PackedError as error:
            raise pb_utils.TritonModelException(str(error)) from error

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests, those of equal item shapes in one run."""
        feeds = [self._feed(request) for request in requests]
        try:
            outcomes = run_together(feeds, self.process.run, batched=True, fatal=(PackedDied,))
        except PackedDied as error:
            sys.stderr.write(f"{error}\n")
            sys.stderr.flush()
            os._exit(1)
        return [self._response(*pair) for pair in zip(requests, outcomes, strict=True)]

    def _feed(self, request: Any) -> Any:
        feed = {}
        for name in self.process.schema["inputs"]:
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            if tensor is None:
                return ValueError(f"input {name} is missing")
            feed[name] = tensor.as_numpy()
        return feed

    def _response(self, request: Any, outcome: Any) -> Any:
        if isinstance(outcome, Exception):
            return pb_utils.InferenceResponse(
                output_tensors=[], error=pb_utils.TritonError(str(outcome))
            )
        wanted = request.requested_output_names()
        tensors = [
            pb_utils.Tensor(name, np.ascontiguousarray(array))
            for name, array in outcome.items()
            if name in wanted
        ]
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def finalize(self) -> None:
        """End the model's process."""
        self.process.stop()
