"""Triton's ``onnxruntime`` backend for CPU, as a Python-based backend.

Runs inside Triton's Python stub, in a process per model instance, and knows
nothing of mqinfer. It is the stand-in for the C++ backend of the same name: the
same model repository serves under both.

Promises kept here: what a configuration leaves out is completed from the model's
file, and what contradicts it does not load (see ``onnxconfig``); requests that Triton
hands over together run as one batch when their shapes agree; each request gets its own
result or its own error, a bad one never fails its neighbours.
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
import onnxconfig  # noqa: E402 - copies of it and of `together` lie beside this file
import onnxruntime  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402
from together import run_together  # noqa: E402

Feed = dict[str, np.ndarray[Any, Any]]

_THREAD_PARAMETERS = {
    "intra_op_thread_count": "intra_op_num_threads",
    "inter_op_thread_count": "inter_op_num_threads",
}


def _parameter(config: dict[str, Any], name: str, default: str) -> str:
    """Read one of the model's parameters, which Triton gives as strings."""
    return str(config.get("parameters", {}).get(name, {}).get("string_value", default))


def _file_name(config: dict[str, Any]) -> str:
    return config.get("default_model_filename") or "model.onnx"


def _own_file(config: dict[str, Any]) -> Path:
    """The model's file, as Triton started this process with it: no argument says it so early."""
    path = Path(Path("/proc/self/cmdline").read_text().split("\0")[1])
    return path.parent / _file_name(config)


def _session(path: Path, config: dict[str, Any]) -> onnxruntime.InferenceSession:
    """Load a model."""
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
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise pb_utils.TritonModelException(onnxconfig.unloaded(str(path), error)) from error


class TritonPythonModel:
    """One instance of one version of one model."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Complete the configuration from the model's file, where it leaves something out."""
        config = auto_complete_model_config.as_dict()
        if not onnxconfig.is_complete(config):
            try:
                # Changed in place: the methods for it know no ``reshape``.
                config.update(onnxconfig.complete(config, _session(_own_file(config), config)))
            except ValueError as error:
                raise pb_utils.TritonModelException(str(error)) from error
        return auto_complete_model_config

    def initialize(self, args: dict[str, str]) -> None:
        """Load the version's model file and compare it with the configuration."""
        config = json.loads(args["model_config"])
        self.name = args["model_name"]
        self.max_batch_size = int(config.get("max_batch_size", 0))
        # For a backend the repository path is the model's folder, with versions below.
        version = Path(args["model_repository"]) / args["model_version"]
        self.session = _session(version / _file_name(config), config)
        try:
            onnxconfig.require(config, self.session)
        except ValueError as error:
            raise pb_utils.TritonModelException(str(error)) from error
        self.inputs = [entry["name"] for entry in config["input"]]
        self.optional = {entry["name"] for entry in config["input"] if entry.get("optional")}
        self.outputs = [entry["name"] for entry in config["output"]]
        self.output_types = {
            entry["name"]: pb_utils.triton_string_to_numpy(entry["data_type"])
            for entry in config["output"]
        }
        # Single values without a side, which Triton does not know: it has one of [1] for them.
        self.single = {
            one.name
            for one in (*self.session.get_inputs(), *self.session.get_outputs())
            if not one.shape
        }

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests, those of equal item shapes in one run."""
        feeds = [self._feed(request) for request in requests]
        outcomes = run_together(feeds, self._run, batched=self.max_batch_size > 0)
        return [self._answer(*pair) for pair in zip(requests, outcomes, strict=True)]

    def _feed(self, request: Any) -> Feed | Exception:
        feed: Feed = {}
        for name in self.inputs:
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            if tensor is None:
                if name in self.optional:
                    continue
                return ValueError(f"input {name} is missing")
            array = tensor.as_numpy()
            if array.dtype == np.object_:  # BYTES arrive as bytes, ONNX wants str
                decode = np.vectorize(lambda item: item.decode(), otypes=[np.object_])
                try:
                    array = decode(array) if array.size else array
                except UnicodeDecodeError as error:
                    return error
            if name in self.single:
                array = array.reshape(())
            feed[name] = array
        return feed

    def _run(self, feed: Feed) -> Feed:
        return dict(zip(self.outputs, self.session.run(self.outputs, feed), strict=True))

    def _answer(self, request: Any, outcome: Feed | Exception) -> Any:
        if not isinstance(outcome, Exception):
            try:
                return self._response(request, outcome)
            except Exception as error:  # noqa: BLE001 - becomes this request's answer
                outcome = error
        return pb_utils.InferenceResponse(
            output_tensors=[], error=pb_utils.TritonError(f"{self.name}: {outcome}")
        )

    def _response(self, request: Any, results: Feed) -> Any:
        wanted = request.requested_output_names()
        tensors = [
            pb_utils.Tensor(
                name,
                np.ascontiguousarray(array.reshape(1) if name in self.single else array).astype(
                    self.output_types[name], copy=False
                ),
            )
            for name, array in results.items()
            if name in wanted
        ]
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def finalize(self) -> None:
        """Free the session."""
        self.session = None
