"""The configuration of an ONNX model, completed from its file and compared with it.

Promise kept here: what Triton's own ``onnxruntime`` backend makes of a folder with nothing but
``1/model.onnx`` is made of it here, and what that backend refuses to load is refused, with the
reason. It knows no more than the standard library, so that the stand-in backend can import a copy
of it inside of Triton.

A configuration is a ``config.pbtxt`` as Triton gives it to its backends: a dict with the field
names of ``ModelConfig``, whose sides may be numbers or, as protobuf's JSON has them, texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

Config = dict[str, Any]

# Triton's own, of its option ``default-max-batch-size``.
DEFAULT_MAX_BATCH_SIZE = 4

_TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "uint16": "TYPE_UINT16",
    "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "float": "TYPE_FP32",
    "double": "TYPE_FP64",
    "string": "TYPE_STRING",
}


class Tensor(Protocol):
    """An input or output of a session; ONNX Runtime's ``NodeArg``."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def type(self) -> str:
        """Such as ``tensor(float)``."""

    @property
    def shape(self) -> Sequence[int | str | None]:
        """Its sides; a text or None where any size goes."""


class Session(Protocol):
    """What is asked of ONNX Runtime's ``InferenceSession``."""

    def get_inputs(self) -> Sequence[Tensor]:
        """What it must be given."""

    def get_outputs(self) -> Sequence[Tensor]:
        """What it answers."""

    def get_overridable_initializers(self) -> Sequence[Tensor]:
        """What it may be given."""


def is_complete(config: Config) -> bool:
    """Whether nothing would be taken from the model's file, as both ways are written."""
    return bool(config.get("input") or config.get("batch_input")) and bool(config.get("output"))


def unloaded(path: str, error: Exception) -> str:
    """Say why ONNX Runtime did not load a file, and what to do where that is known.

    Args:
        path: of the file.
        error: that ONNX Runtime raised.
    """
    if not Path(path).exists():
        return f"cannot load {path}: there is no such file; put the model there"
    if "INVALID_PROTOBUF" in str(error):
        return (
            f"cannot load {path}: its {Path(path).stat().st_size:,} bytes are no whole ONNX model; "
            "was the copy cut off?"
        )
    return f"cannot load {path}: {error}"


def complete(config: Config, session: Session) -> Config:
    """Give a configuration with what it leaves out, taken from the model.

    One that names inputs and outputs is left as it is, ``max_batch_size: 0`` included. Else the
    model takes batches if the first side of each input and output is open: four at a time where
    nothing larger is written, gathered by ``dynamic_batching``. Version, instances and all else
    are Triton's to complete.

    Args:
        config: as written; it is not changed.
        session: with the model.

    Returns:
        The completed one; :func:`require` still has to look at what was written.

    Raises:
        ValueError: Triton would not load the model, and why.
    """
    if is_complete(config):
        return config
    done = dict(config)
    name = config.get("name", "")
    inputs = [_tensor(name, one) for one in session.get_inputs()]
    outputs = [_tensor(name, one) for one in session.get_outputs()]
    batch = int(config.get("max_batch_size") or 0)
    if all(shape[:1] == [-1] for _, _, shape in (*inputs, *outputs)):
        done["max_batch_size"] = batch = batch or DEFAULT_MAX_BATCH_SIZE
        if batch > 1 and not any(
            way in config for way in ("sequence_batching", "dynamic_batching")
        ):
            done["dynamic_batching"] = {}
    elif batch:
        fixed = ", ".join(f"{label} {shape}" for label, _, shape in (*inputs, *outputs))
        raise ValueError(
            f"model {name!r} takes no batches, as the first side of each input and output must be "
            f"open (-1) for that, while max_batch_size is {batch}; the model has {fixed}"
        )
    if not (config.get("input") or config.get("batch_input")):
        done["input"] = [_entry(*one, batch) for one in inputs]
    if not config.get("output"):
        done["output"] = [_entry(*one, batch) for one in outputs]
    return done


def require(config: Config, session: Session) -> None:
    """Refuse a complete configuration that the model contradicts.

    Raises:
        ValueError: what contradicts what.
    """
    name = config.get("name", "")
    batch = int(config.get("max_batch_size") or 0)
    written = config.get("input", [])
    needed = session.get_inputs()
    controls = config.get("sequence_batching", {})
    expected = (
        sum(not one.get("optional") for one in written)
        + len(config.get("batch_input", []))
        + len(controls.get("control_input", []))
        + len(controls.get("state", []))
    )
    known = {one.name: one for one in (*needed, *session.get_overridable_initializers())}
    for entry in written:
        if entry.get("optional") and batch:
            raise ValueError(
                f"model {name!r}: input {entry['name']!r} is optional, which a model that takes "
                "batches cannot have"
            )
        _compare(name, "input", entry, known, batch, exact=False)
    if len(needed) != expected:
        raise ValueError(
            f"model {name!r}: the configuration has {expected} inputs "
            f"({_names(entry['name'] for entry in written)}), the model wants {len(needed)} "
            f"({_names(one.name for one in needed)})"
        )
    free = {target for one in config.get("batch_output", []) for target in one["target_name"]}
    known = {one.name: one for one in session.get_outputs()}
    for entry in config.get("output", []):
        _compare(name, "output", entry, known, batch, exact=True, any_shape=entry["name"] in free)


def _compare(
    name: str,
    way: str,
    entry: Config,
    known: dict[str, Tensor],
    batch: int,
    *,
    exact: bool,
    any_shape: bool = False,
) -> None:
    label = entry["name"]
    about = f"model {name!r}, {way} {label!r}"
    if label not in known:
        raise ValueError(f"model {name!r} has no {way} {label!r}; it has {_names(known)}")
    _, kind, shape = _tensor(name, known[label])
    said = entry.get("data_type", "TYPE_INVALID")
    if said != kind:
        raise ValueError(f"{about}: the configuration says {said}, the model {kind}")
    sides = [int(side) for side in _dims(entry)]
    if any_shape or entry.get("allow_ragged_batch"):
        if not any_shape and shape != [-1]:
            raise ValueError(f"{about} is ragged, so the model's must be [-1], not {shape}")
        return
    if not shape:
        if any(side != 1 for side in sides):
            raise ValueError(f"{about}: the model's is a single value, dims {sides} do not fit")
        return
    if batch and shape[0] != -1:
        raise ValueError(
            f"{about}: with max_batch_size {batch} the first side must be open (-1) in the model, "
            f"which has {shape}"
        )
    full = [-1, *sides] if batch else sides
    fits = len(full) == len(shape) and all(
        have == want for have, want in zip(shape, full, strict=True) if exact or have != -1
    )
    if not fits:
        before = " (the first one is the batch's)" if batch else ""
        raise ValueError(
            f"{about}: the configuration says {full}{before}, the model has {shape}"
            + (", and for outputs both must be the same" if exact else "")
        )


def _dims(entry: Config) -> Sequence[int | str]:
    dims: Sequence[int | str] = entry.get("dims", [])
    return entry["reshape"].get("shape", []) if "reshape" in entry else dims


def _tensor(name: str, one: Tensor) -> tuple[str, str, list[int]]:
    """Its name, Triton's type and its sides, -1 where any size goes."""
    kind, _, inner = one.type.partition("(")
    inner = inner.rstrip(")")
    if kind != "tensor" or inner not in _TYPES:
        advice = " (convert scikit-learn models with zipmap=False)" if "map" in one.type else ""
        raise ValueError(
            f"model {name!r}: {one.name!r} is a {one.type}, which Triton does not serve{advice}"
        )
    return one.name, _TYPES[inner], [side if isinstance(side, int) else -1 for side in one.shape]


def _entry(label: str, kind: str, shape: list[int], batch: int) -> Config:
    """How an input or output is written."""
    sides = shape[1:] if batch else shape
    entry: Config = {"name": label, "data_type": kind, "dims": sides or [1]}
    if batch and not sides:  # one value an item, without a side of its own
        entry["reshape"] = {"shape": []}
    return entry


def _names(names: Any) -> str:
    return ", ".join(repr(one) for one in names) or "none"
