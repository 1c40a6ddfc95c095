"""A model's config.pbtxt: read, refused where it makes no sense, completed as Triton does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2 as pb

from mqinfer.adapters import tritonconfig
from mqinfer.errors import ConfigurationError
from mqinfer.stack.inferenceserver.tensors import DATATYPES, Signature, Stated

_ONNX, _ONNX_PLATFORM, _PYTHON = "onnxruntime", "onnxruntime_onnx", "python"
# The files by which Triton knows the backend of a folder that does not say it.
_FILES = {_ONNX: "model.onnx", _PYTHON: "model.py"}
# As many as Triton starts of a model on CPUs that says nothing.
_INSTANCES = {_ONNX: 2, _PYTHON: 1}


class BadModel(Exception):
    """A folder of the repository holds no model that can be served; the text says why."""


def read(folder: Path) -> pb.ModelConfig:
    """The configuration of the model in a folder; what it leaves out its file may say.

    Raises:
        BadModel: it is none that can be served here.
    """
    if not folder.is_dir():
        raise BadModel(f"there is no folder {folder}")
    file = folder / "config.pbtxt"
    try:
        config = tritonconfig.parsed(file) if file.exists() else pb.ModelConfig()
    except ConfigurationError as error:
        raise BadModel(str(error)) from None
    if config.name and config.name != folder.name:
        raise BadModel(
            f"unexpected directory name '{folder.name}' for model '{config.name}', "
            "directory name must equal model name"
        )
    config.name = folder.name
    config.backend = _backend(folder, config)
    _refuse(config)
    _complete(config)
    return config


def _backend(folder: Path, config: pb.ModelConfig) -> str:
    """What runs a model."""
    if config.platform == "ensemble" or config.HasField("ensemble_scheduling"):
        raise BadModel(f"model '{config.name}' is an ensemble: those are served by Triton only")
    said = config.backend or config.platform
    if not said:
        there = sorted({one.name for one in folder.glob("[1-9]*/*")})
        for backend, name in _FILES.items():
            if name in there:
                return backend
        raise BadModel(
            f"no backend is known for it: its version folders have {', '.join(there) or 'nothing'},"
            " no model.onnx or model.py; or say the backend in config.pbtxt"
        )
    backend = _ONNX if said == _ONNX_PLATFORM else said
    if backend not in _FILES:
        raise BadModel(
            f"unable to find backend library for backend '{said}': this server has only {_ONNX}, "
            "and python for packed models; others are served by Triton"
        )
    return backend


def _refuse(config: pb.ModelConfig) -> None:
    name = config.name
    if config.model_transaction_policy.decoupled:
        raise BadModel(f"model '{name}' is decoupled: such models are served by Triton only")
    if config.HasField("sequence_batching"):
        raise BadModel(f"model '{name}' batches sequences: such models are served by Triton only")
    if config.max_batch_size < 0:
        raise BadModel(f"'max_batch_size' must be non-negative value for {name}")
    for what, tensors in (("input", config.input), ("output", config.output)):
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
    config.platform = _ONNX_PLATFORM if config.backend == _ONNX else config.platform
    config.default_model_filename = config.default_model_filename or _FILES[config.backend]
    if config.version_policy.WhichOneof("policy_choice") is None:
        config.version_policy.latest.num_versions = 1
    if config.version_policy.HasField("latest"):
        config.version_policy.latest.num_versions = config.version_policy.latest.num_versions or 1
    if not config.instance_group:
        config.instance_group.add(name=config.name, count=_INSTANCES[config.backend])
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
    """What the process of an instance is told, see `instance.RUNTIMES`.

    Args:
        config: of the model.
        folder: of its version.
    """
    return {
        "runtime": config.backend,
        "name": config.name,
        "version": folder.name,
        "folder": str(folder),
        "config": json_format.MessageToDict(config, preserving_proto_field_name=True),
    }


def completed(told: dict[str, Any]) -> pb.ModelConfig:
    """The configuration as the process of an instance completed it.

    Raises:
        BadModel: it says not enough, or what cannot be served here.
    """
    config = json_format.ParseDict(told, pb.ModelConfig())
    for what, tensors in (("input", config.input), ("output", config.output)):
        if not tensors:
            raise BadModel(f"must specify at least one {what} for {config.name}")
    _refuse(config)
    return config


def signature(config: pb.ModelConfig) -> Signature:
    """What a model takes and gives, by its completed configuration."""
    inputs, outputs = (
        [
            Stated(
                one.name,
                datatype(one),
                tuple(one.dims),
                tuple(one.reshape.shape) if one.HasField("reshape") else None,
                getattr(one, "optional", False),
            )
            for one in tensors
        ]
        for tensors in (config.input, config.output)
    )
    return Signature(config.name, inputs, outputs, config.max_batch_size)
