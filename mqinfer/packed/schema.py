"""What a packed model takes and gives: types and shapes of one item, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mqinfer.errors import ConfigurationError

# `[dtype, shape]` by name, as it lies in packed.json: first the inputs, then the outputs.
Tensors = dict[str, list[Any]]
Schema = dict[str, Tensors]

# Triton's types by NumPy's.
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
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "string": "TYPE_STRING",
    "bytes": "TYPE_STRING",
}


def triton_type(name: str, dtype: str) -> str:
    """Triton's type of a tensor.

    Raises:
        ConfigurationError: it has none.
    """
    try:
        return _TYPES[dtype]
    except KeyError:
        raise ConfigurationError(
            f"{name!r} is of the type {dtype}; a tensor is one of {', '.join(_TYPES)}"
        ) from None


def told(inputs: Sequence[str], outputs: Sequence[str]) -> Schema | None:
    """The schema that options say, each `NAME:DTYPE:SIDE,SIDE`; None where they say none.

    Raises:
        ConfigurationError: one is not of that form, or only one of both ways is said.
    """
    if not inputs and not outputs:
        return None
    if not (inputs and outputs):
        raise ConfigurationError("say all inputs and all outputs, --input and --output, or neither")
    return {"inputs": _parsed("--input", inputs), "outputs": _parsed("--output", outputs)}


def _parsed(option: str, given: Iterable[str]) -> Tensors:
    found: Tensors = {}
    for text in given:
        name, _, rest = text.partition(":")
        dtype, _, sides = rest.partition(":")
        try:
            shape = [int(side) for side in sides.split(",") if side]
        except ValueError:
            shape = [0]
        if not (name and dtype) or any(side < 1 and side != -1 for side in shape):
            raise ConfigurationError(
                f"{option} takes NAME:DTYPE:SIDES of one item, such as image:float32:3,224,224 "
                f"(-1 for any size, no sides for one value), not {text!r}"
            )
        triton_type(name, dtype)
        if name in found:
            raise ConfigurationError(f"{option} {name} is said twice")
        found[name] = [dtype, shape]
    return found


def entries(schema: Schema) -> Mapping[str, list[tuple[str, str, list[int]]]]:
    """Name, Triton's type and sides of each `input` and `output` of a configuration.

    One value an item has a side of its own.
    """
    return {
        way.removesuffix("s"): [
            (name, triton_type(name, dtype), list(shape) or [1])
            for name, (dtype, shape) in tensors.items()
        ]
        for way, tensors in schema.items()
    }
