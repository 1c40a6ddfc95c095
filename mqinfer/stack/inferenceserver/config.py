"""A model's config.pbtxt: read, refused where it makes no sense, completed as Triton does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from mqinfer.stack.inferenceserver.tensors import DATATYPES

_BACKEND = "onnxruntime"
_PLATFORM = "onnxruntime_onnx"
_FILE = "model.onnx"
# As many as Triton starts of a model on CPUs that says nothing.
_INSTANCES = 2
_THREADS = ("intra_op_thread_count", "inter_op_thread_count")


class BadModel(Exception):
    """A folder of the repository holds no model that can be served; the text says why."""


def read(folder: Path) -> pb.ModelConfig:
    """The configuration of the model in a folder.

    Raises:
        BadModel: there is none, or none that can be served here.
    """
    if not folder.is_dir():
        raise BadModel(f"there is no folder {folder}")
    file = folder / "config.pbtxt"
    try:
        config = text_format.Parse(file.read_bytes(), pb.ModelConfig())
    except FileNotFoundError:
        raise BadModel(f"{file} is missing: say there what the model takes and gives") from None
    except (OSError, text_format.ParseError, UnicodeDecodeError) as error:
        raise BadModel(f"{file} cannot be read: {error}") from None
    if config.name and config.name != folder.name:
        raise BadModel(
            f"unexpected directory name '{folder.name}' for model '{config.name}', "
            "directory name must equal model name"
        )
    config.name = folder.name
    _refuse(config)
    _complete(config)
    return config


def _refuse(config: pb.ModelConfig) -> None:
    name = config.name
    backend = config.backend or config.platform
    if config.platform == "ensemble" or config.HasField("ensemble_scheduling"):
        raise BadModel(f"model '{name}' is an ensemble: those are served by Triton only")
    if config.backend == "python":
        raise BadModel(f"model '{name}': backend python is served by Triton only")
    if backend not in {_BACKEND, _PLATFORM}:
        raise BadModel(
            f"unable to find backend library for backend '{backend}': this server has only "
            f"{_BACKEND}; others are served by Triton"
        )
    if config.model_transaction_policy.decoupled:
        raise BadModel(f"model '{name}' is decoupled: such models are served by Triton only")
    if config.HasField("sequence_batching"):
        raise BadModel(f"model '{name}' batches sequences: such models are served by Triton only")
    if config.max_batch_size < 0:
        raise BadModel(f"'max_batch_size' must be non-negative value for {name}")
    for what, tensors in (("input", config.input), ("output", config.output)):
        if not tensors:
            raise BadModel(f"must specify at least one {what} for {name}")
        for tensor in tensors:
            _refuse_tensor(name, what, tensor)


def _refuse_tensor(model: str, what: str, tensor: Any) -> None:
    title = f"model {what} '{tensor.name}'"
    if not tensor.name:
        raise BadModel(f"model {what} must specify 'name' for {model}")
    if not tensor.dims and not tensor.HasField("reshape"):
        raise BadModel(f"{title} must specify 'dims' for {model}")
    if any(side < -1 or side == 0 for side in tensor.dims):
        raise BadModel(f"{title} dimension must be integer >= 1, or -1, for {model}")
    if datatype(tensor) not in DATATYPES:
        stated = pb.DataType.Name(tensor.data_type)
        raise BadModel(f"{title} of {model} has data_type {stated}, which this server has not")


def _complete(config: pb.ModelConfig) -> None:
    """Write what Triton would assume."""
    config.backend, config.platform = _BACKEND, _PLATFORM
    config.default_model_filename = config.default_model_filename or _FILE
    if config.version_policy.WhichOneof("policy_choice") is None:
        config.version_policy.latest.num_versions = 1
    if config.version_policy.HasField("latest"):
        config.version_policy.latest.num_versions = config.version_policy.latest.num_versions or 1
    if not config.instance_group:
        config.instance_group.add(name=config.name, count=_INSTANCES)
    for number, group in enumerate(config.instance_group):
        group.name = group.name or f"{config.name}_{number}"
        group.count = group.count or 1
        group.kind = pb.ModelInstanceGroup.KIND_CPU  # whatever it would like
        del group.gpus[:]


def versions(folder: Path, config: pb.ModelConfig) -> list[int]:
    """The versions in a model's folder that its policy wants, in order.

    Raises:
        BadModel: there is none.
    """
    there = sorted(
        int(one.name)
        for one in folder.iterdir()
        if one.name.isdigit() and not one.name.startswith("0") and one.is_dir()
    )
    policy = config.version_policy
    if policy.HasField("latest"):
        there = there[-policy.latest.num_versions :]
    elif policy.HasField("specific"):
        there = [one for one in there if one in policy.specific.versions]
    if not there:
        raise BadModel(
            "at least one version must be available under the version policy of model "
            f"'{config.name}'"
        )
    return there


def datatype(tensor: Any) -> str:
    """Triton's name of a tensor's type: FP32, BYTES, ..."""
    name = pb.DataType.Name(tensor.data_type).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name


def instances(config: pb.ModelConfig) -> list[str]:
    """The names of a version's instances."""
    return [
        f"{group.name}_{number}" for group in config.instance_group for number in range(group.count)
    ]


def specification(config: pb.ModelConfig, folder: Path) -> dict[str, Any]:
    """What the process of an instance is told (`instance.RUNTIMES`); shapes as the model sees them.

    Args:
        config: of the model.
        folder: of its version.

    Raises:
        BadModel: a parameter is no number.
    """
    threads: dict[str, int] = {}
    for name in _THREADS:
        if name in config.parameters:
            text = config.parameters[name].string_value
            if not text.isdecimal():
                raise BadModel(f"parameter {name} of model '{config.name}' is no number: {text!r}")
            threads |= {name: int(text)} if int(text) > 0 else {}
    batch = [-1] if config.max_batch_size else []
    return {
        "runtime": config.backend,
        "name": config.name,
        "version": folder.name,
        "path": str(folder / config.default_model_filename),
        "threads": threads,
        "inputs": [_told(one, batch, optional=one.optional) for one in config.input],
        "outputs": [_told(one, batch, optional=False) for one in config.output],
    }


def _told(tensor: Any, batch: Sequence[int], *, optional: bool) -> dict[str, Any]:
    dims = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
    shape = [*batch, *dims]
    return {
        "name": tensor.name,
        "datatype": datatype(tensor),
        "shape": shape,
        "optional": optional,
    }
