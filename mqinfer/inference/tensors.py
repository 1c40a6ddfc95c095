"""Tensors: items checked against what a model wants, put together into a request, taken apart.

Pure. Nothing is cast silently: an array that does not fit is refused with both sides named.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mqinfer.errors import BadTensor, ModelError
from mqinfer.ports import ModelInfo, ModelReply, TensorInfo

if TYPE_CHECKING:
    from mqinfer.model import Array


def check(info: ModelInfo, inputs: Mapping[str, Any]) -> dict[str, Array]:
    """One item's inputs as they can be sent, in the model's order.

    Raises:
        BadTensor: a name, type, dtype or shape does not fit the model.
    """
    checked: dict[str, Array] = {}
    for wanted in info.inputs:
        array = inputs.get(wanted.name)
        if array is None:
            if wanted.optional and wanted.name not in inputs:
                continue
            if wanted.name not in inputs:
                raise BadTensor(
                    f"model {info.name}: input {wanted.name!r} is missing; {_signature(info)}"
                )
        checked[wanted.name] = _fit(info, wanted, array)
    if len(checked) != len(inputs):
        unknown = ", ".join(repr(name) for name in inputs if name not in checked)
        raise BadTensor(f"model {info.name}: no input is called {unknown}; {_signature(info)}")
    return checked


def signature(inputs: Mapping[str, Array]) -> Hashable:
    """What items must share to be in one request: names, dtypes and shapes."""
    return tuple([(name, array.dtype, array.shape) for name, array in inputs.items()])


def size(inputs: Mapping[str, Array]) -> int:
    """Bytes that an item adds to a request."""
    total = 0
    for array in inputs.values():
        if array.dtype.hasobject:
            # Four bytes of length before each string.
            strings: list[str | bytes] = array.ravel().tolist()
            total += sum(len(item) + 4 for item in strings)
        else:
            total += array.nbytes
    return total


class Gathered(Mapping[str, "Array"]):
    """The inputs of one request: those of items of one signature, stacked.

    They are stacked for whoever asks for an array. Who writes them out takes the `rows`, one after
    the other, so that a tensor is copied once on its way.

    Args:
        items: at least one.
    """

    __slots__ = ("_items",)

    def __init__(self, items: Sequence[Mapping[str, Array]]):
        self._items = items

    def rows(self, name: str) -> list[Array]:
        """One input of each item, without batch dimension."""
        return [item[name] for item in self._items]

    def __getitem__(self, name: str) -> Array:
        return np.stack(self.rows(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._items[0])

    def __len__(self) -> int:
        return len(self._items[0])


def assemble(info: ModelInfo, items: Sequence[Mapping[str, Array]]) -> Mapping[str, Array]:
    """The inputs of one request; nothing is copied yet.

    A model without batch dimension takes its one item as it is.
    """
    return Gathered(items) if info.max_batch_size else items[0]


def split(info: ModelInfo, reply: ModelReply, count: int) -> list[dict[str, Array]]:
    """The outputs of each item of a request; views on the reply.

    Raises:
        ModelError: an output is missing, or has not one row an item.
    """
    outputs = reply.outputs
    for wanted in info.outputs:
        if wanted.name not in outputs:
            raise ModelError(
                f"model {info.name} version {reply.version}: the reply lacks the output "
                f"{wanted.name!r}; it has {', '.join(map(repr, outputs)) or 'none'}"
            )
    if not info.max_batch_size:
        return [dict(outputs)]
    for name, array in outputs.items():
        if array.ndim < 1 or array.shape[0] != count:
            raise ModelError(
                f"model {info.name} version {reply.version}: output {name!r} of a request with "
                f"{count} items has the shape {array.shape}, so its rows belong to no item"
            )
    # The ellipsis keeps a scalar output an array.
    return [{name: array[row, ...] for name, array in outputs.items()} for row in range(count)]


def part(info: ModelInfo, reply: ModelReply) -> dict[str, Array]:
    """The outputs in one part of an item's answer, as many as there are; views on the reply.

    Raises:
        ModelError: an output has not one row.
    """
    return split(replace(info, outputs=()), reply, 1)[0]


def _fit(info: ModelInfo, wanted: TensorInfo, array: Any) -> Array:
    if not isinstance(array, np.ndarray):
        raise BadTensor(
            f"model {info.name}: input {wanted.name!r} is a {type(array).__name__}; "
            f"pass a NumPy array, {_describe(wanted)}"
        )
    shape, sides = array.shape, wanted.shape
    fits = shape == sides or (
        len(shape) == len(sides)
        and all(want in {-1, have} for have, want in zip(shape, sides, strict=True))
    )
    if fits and array.dtype == wanted.dtype:
        return _strings(info, wanted, array) if array.dtype.hasobject else array
    if fits and wanted.dtype.hasobject and array.dtype.kind in "SU":
        # NumPy's own strings are the same values in another layout.
        return array.astype(object)
    raise BadTensor(
        f"model {info.name}: input {wanted.name!r} is {_dtype(array.dtype)} {array.shape}, "
        f"the model wants {_describe(wanted)}"
    )


def _strings(info: ModelInfo, wanted: TensorInfo, array: Array) -> Array:
    for item in array.flat:
        if not isinstance(item, str | bytes):
            raise BadTensor(
                f"model {info.name}: input {wanted.name!r} holds a {type(item).__name__}; "
                "its elements must be str or bytes"
            )
    return array


def _dtype(dtype: np.dtype[Any]) -> str:
    # The name of a dtype hides its byte order.
    return dtype.name if dtype.isnative else f"{dtype.name} of foreign byte order"


def _describe(wanted: TensorInfo) -> str:
    shape = tuple("any" if side == -1 else side for side in wanted.shape)
    dtype = "strings" if wanted.dtype.hasobject else wanted.dtype.name
    return f"{dtype} {shape}".replace("'", "")


def _signature(info: ModelInfo) -> str:
    inputs = [
        f"{tensor.name!r} {_describe(tensor)}" + (" (optional)" if tensor.optional else "")
        for tensor in info.inputs
    ]
    return f"the model's inputs are {', '.join(inputs)}"
