"""Triton's ``onnxruntime`` backend for CPU, as a Python-based backend.

Runs inside Triton's Python stub, in a process per model instance, and knows
nothing of mqinfer. It is the stand-in for the C++ backend of the same name: the
same model repository serves under both.

Promises kept here: requests that Triton hands over together run as one batch
when their shapes agree; each request gets its own result or its own error, a bad
one never fails its neighbours.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

# The stub's interpreter starts isolated: it does not look at PYTHONPATH by itself,
# where the packages of the environment that started the server are named.
sys.path[:0] = [path for path in os.environ.get("PYTHONPATH", "").split(":") if path]

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402

Feed = dict[str, np.ndarray[Any, Any]]

_THREAD_PARAMETERS = {
    "intra_op_thread_count": "intra_op_num_threads",
    "inter_op_thread_count": "inter_op_num_threads",
}


def _parameter(config: dict[str, Any], name: str, default: str) -> str:
    """Read one of the model's parameters, which Triton gives as strings."""
    return str(config.get("parameters", {}).get(name, {}).get("string_value", default))


class TritonPythonModel:
    """One instance of one version of one model."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Leave the configuration as it was written; the inputs are stated there."""
        return auto_complete_model_config

    def initialize(self, args: dict[str, str]) -> None:
        """Load the version's model file and compare it with the configuration."""
        config = json.loads(args["model_config"])
        self.name = args["model_name"]
        self.max_batch_size = int(config.get("max_batch_size", 0))
        file_name = config.get("default_model_filename") or "model.onnx"
        # For a backend the repository path is the model's folder, with versions below.
        path = str(Path(args["model_repository"]) / args["model_version"] / file_name)
        options = onnxruntime.SessionOptions()
        # One thread an instance: instances are what Triton scales by, and threads
        # of several instances would only fight for the same cores.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        for parameter, option in _THREAD_PARAMETERS.items():
            value = int(_parameter(config, parameter, "0"))
            if value > 0:
                setattr(options, option, value)
        try:
            self.session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise pb_utils.TritonModelException(f"cannot load {path}: {error}") from error

        self.inputs = [entry["name"] for entry in config["input"]]
        self.outputs = [entry["name"] for entry in config["output"]]
        self.output_types = {
            entry["name"]: pb_utils.triton_string_to_numpy(entry["data_type"])
            for entry in config["output"]
        }
        self._compare("inputs", self.inputs, [entry.name for entry in self.session.get_inputs()])
        known = [entry.name for entry in self.session.get_outputs()]
        missing = sorted(set(self.outputs) - set(known))
        if missing:
            raise pb_utils.TritonModelException(f"{path} has no outputs {missing}; it has {known}")

    def _compare(self, what: str, configured: list[str], actual: list[str]) -> None:
        if set(configured) != set(actual):
            raise pb_utils.TritonModelException(
                f"config.pbtxt of {self.name} states {what} {sorted(configured)}, "
                f"the model file has {sorted(actual)}"
            )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests, those of equal item shapes in one run."""
        responses: list[Any] = [None] * len(requests)
        groups: dict[Any, list[tuple[int, Feed]]] = {}
        for position, request in enumerate(requests):
            try:
                feed = self._feed(request)
                groups.setdefault(self._signature(position, feed), []).append((position, feed))
            except Exception as error:  # noqa: BLE001 - becomes this request's answer
                responses[position] = self._failure(error)
        for members in groups.values():
            if len(members) > 1:
                try:
                    self._run_together(members, requests, responses)
                    continue
                except Exception:  # noqa: BLE001 - one of them is bad: find out which
                    pass
            for position, feed in members:
                try:
                    results = self._run(feed)
                    responses[position] = self._response(requests[position], results)
                except Exception as error:  # noqa: BLE001 - becomes this request's answer
                    responses[position] = self._failure(error)
        return responses

    def _feed(self, request: Any) -> Feed:
        feed: Feed = {}
        for name in self.inputs:
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            if tensor is None:
                raise ValueError(f"input {name} is missing")
            array = tensor.as_numpy()
            if array.dtype == np.object_:  # BYTES arrive as bytes, ONNX wants str
                decode = np.vectorize(lambda item: item.decode(), otypes=[np.object_])
                array = decode(array) if array.size else array
            feed[name] = array
        return feed

    def _signature(self, position: int, feed: Feed) -> object:
        """Give equal keys to requests that may share a run."""
        if self.max_batch_size == 0 or any(array.ndim == 0 for array in feed.values()):
            return position
        rows = {array.shape[0] for array in feed.values()}
        if len(rows) != 1:
            return position
        return tuple((name, array.dtype.str, array.shape[1:]) for name, array in feed.items())

    def _run(self, feed: Feed) -> Feed:
        return dict(zip(self.outputs, self.session.run(self.outputs, feed), strict=True))

    def _run_together(
        self, members: list[tuple[int, Feed]], requests: list[Any], responses: list[Any]
    ) -> None:
        """Run several requests as one batch and cut the results apart again."""
        batch = {name: np.concatenate([feed[name] for _, feed in members]) for name in self.inputs}
        sizes = [feed[self.inputs[0]].shape[0] for _, feed in members]
        total = sum(sizes)
        results = self._run(batch)
        for name, array in results.items():
            if array.ndim == 0 or array.shape[0] != total:
                raise ValueError(f"output {name} has no batch dimension")
        start = 0
        for (position, _), size in zip(members, sizes, strict=True):
            part = {name: array[start : start + size] for name, array in results.items()}
            responses[position] = self._response(requests[position], part)
            start += size

    def _response(self, request: Any, results: Feed) -> Any:
        wanted = request.requested_output_names()
        tensors = [
            pb_utils.Tensor(
                name,
                np.ascontiguousarray(array).astype(self.output_types[name], copy=False),
            )
            for name, array in results.items()
            if name in wanted
        ]
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def _failure(self, error: Exception) -> Any:
        return pb_utils.InferenceResponse(
            output_tensors=[], error=pb_utils.TritonError(f"{self.name}: {error}")
        )

    def finalize(self) -> None:
        """Free the session."""
        self.session = None
