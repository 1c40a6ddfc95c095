"""Padding: items of different lengths filled up, so that they go together; outputs cut again. Pure.

Declared on a handle: `app.model("m", pad={"tokens": 0, "mask": 0})`. Then, for each input so named:

* Its variable sides (-1 in the model's metadata) are filled up, at their ends, to the longest in
  the request. Nothing else is changed, and a lone item is sent as it is. What tells the model where
  an item ends, a mask or a length, is an input like others: the caller's, and padded if named.
* Items whose lengths lie between the same powers of two go together, so that a request is at most
  twice as long a side as what is in it.
* An output is cut back to its item's own lengths if all its variable sides are as long, in order,
  as those of a padded input with as many of them. Any other stays as the model gave it.
* An item whose padded inputs differ in length among themselves, where an output might follow
  either, goes with items of its own shapes only.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mqinfer.errors import BadTensor
from mqinfer.inference import tensors
from mqinfer.ports import ModelInfo, TensorInfo

if TYPE_CHECKING:
    from mqinfer.model import Array, Pad


def require(info: ModelInfo, pad: Pad) -> None:
    """Refuse a declaration that does not fit the model.

    Raises:
        BadTensor: an input is not there or has no variable side, or cannot hold the value.
    """
    wanted = {tensor.name: tensor for tensor in info.inputs}
    for name, value in pad:
        tensor = wanted.get(name)
        if tensor is None:
            raise BadTensor(f"model {info.name}: pad names {name!r}, which is no input of it")
        if -1 not in tensor.shape:
            raise BadTensor(
                f"model {info.name}: pad names the input {name!r}, which has no variable side: "
                f"its shape is {tensor.shape}"
            )
        if not _holds(tensor, value):
            kind = "strings" if tensor.dtype.hasobject else tensor.dtype.name
            raise BadTensor(
                f"model {info.name}: pad fills the input {name!r} up with {value!r}, "
                f"which {kind} cannot hold"
            )


def signature(info: ModelInfo, inputs: Mapping[str, Array], pad: Pad) -> Hashable:
    """What items must share to be in one request."""
    sides = _sides(info, pad)
    # Of the variable sides, by how many there are: the first padded input's.
    lengths: dict[int, tuple[int, ...]] = {}
    for name, axes in sides.items():
        if name in inputs:
            own = tuple(inputs[name].shape[axis] for axis in axes)
            if lengths.setdefault(len(axes), own) != own and _followed(info, len(axes)):
                return tensors.signature(inputs)
    return tuple(
        (name, array.dtype, _grouped(array.shape, sides.get(name, ())))
        for name, array in inputs.items()
    )


def padded(items: Sequence[Mapping[str, Array]], pad: Pad) -> Sequence[Mapping[str, Array]]:
    """Items of one signature, equally long; the same object where they are so already."""
    filled: dict[str, list[Array]] = {}
    for name, value in pad:
        arrays = [item[name] for item in items if name in item]
        shapes = {array.shape for array in arrays}
        if len(shapes) > 1:
            target = tuple(max(sides) for sides in zip(*shapes, strict=True))
            filled[name] = [_fill(array, target, value) for array in arrays]
    if not filled:
        return items
    return [
        {name: filled[name][row] if name in filled else array for name, array in item.items()}
        for row, item in enumerate(items)
    ]


def cut(
    info: ModelInfo,
    items: Sequence[Mapping[str, Array]],
    sent: Sequence[Mapping[str, Array]],
    outputs: Sequence[Mapping[str, Array]],
    pad: Pad,
) -> list[dict[str, Array]]:
    """The outputs of each item without what belongs to its padding; views.

    Args:
        info: of the model.
        items: as they were.
        sent: what `padded` made of them.
        outputs: of each of those.
        pad: as declared.
    """
    result = [dict(row) for row in outputs]
    followed: dict[int, tuple[str, tuple[int, ...]]] = {}
    for name, axes in _sides(info, pad).items():
        if name in items[0]:
            followed.setdefault(len(axes), (name, axes))
    for tensor in info.outputs:
        free = _free(tensor)
        if not free or len(free) not in followed:
            continue
        name, axes = followed[len(free)]
        for item, filled, row in zip(items, sent, result, strict=True):
            array, shape = row[tensor.name], filled[name].shape
            if array.ndim == len(tensor.shape) and all(
                array.shape[out] == shape[axis] for out, axis in zip(free, axes, strict=True)
            ):
                kept = [slice(None)] * array.ndim
                for out, axis in zip(free, axes, strict=True):
                    kept[out] = slice(item[name].shape[axis])
                row[tensor.name] = array[tuple(kept)]
    return result


def _free(tensor: TensorInfo) -> tuple[int, ...]:
    """The axes whose size is variable."""
    return tuple(axis for axis, side in enumerate(tensor.shape) if side == -1)


def _sides(info: ModelInfo, pad: Pad) -> dict[str, tuple[int, ...]]:
    """The variable axes of each padded input, in the order of the declaration."""
    wanted = {tensor.name: tensor for tensor in info.inputs}
    return {name: _free(wanted[name]) for name, _ in pad if name in wanted}


def _followed(info: ModelInfo, count: int) -> bool:
    """Whether an output has so many variable sides."""
    return any(len(_free(tensor)) == count for tensor in info.outputs)


def _grouped(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """A shape with the power of two above each variable side, below zero, instead of it."""
    return tuple(
        -1 - (max(side, 1) - 1).bit_length() if axis in axes else side
        for axis, side in enumerate(shape)
    )


def _fill(array: Array, shape: tuple[int, ...], value: bool | float | str | bytes) -> Array:
    if array.shape == shape:
        return array
    filled = np.full(shape, value, array.dtype)
    filled[tuple(slice(side) for side in array.shape)] = array
    return filled


def _holds(tensor: TensorInfo, value: bool | float | str | bytes) -> bool:
    if tensor.dtype.hasobject or isinstance(value, str | bytes):
        return tensor.dtype.hasobject and isinstance(value, str | bytes)
    if tensor.dtype.kind == "b":
        return value in (0, 1)
    if tensor.dtype.kind in "iu":
        bounds = np.iinfo(tensor.dtype)  # type: ignore[type-var]
        return isinstance(value, int) and bounds.min <= value <= bounds.max
    return True
