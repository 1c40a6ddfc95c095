"""Tensors of requests and answers: checked against a model's configuration, in Triton's words.

They stay raw bytes all the way, as the protocol has them: what lies one behind the other is a
batch, strings included, so that nothing is taken apart here but the answers to a batch.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from mqinfer.stack.inferenceserver.refused import Refused, invalid, not_found

# Bytes of an element; strings have 0. BF16 is left out, which NumPy does not have.
DATATYPES = {
    "BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8,
    "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8,
    "FP16": 2, "FP32": 4, "FP64": 8, "BYTES": 0,
}  # fmt: skip
# Typed contents: the field for a datatype, and how its elements are packed.
_CONTENTS = {
    "BOOL": ("bool_contents", "?"),
    "INT8": ("int_contents", "b"),
    "INT16": ("int_contents", "h"),
    "INT32": ("int_contents", "i"),
    "INT64": ("int64_contents", "q"),
    "UINT8": ("uint_contents", "B"),
    "UINT16": ("uint_contents", "H"),
    "UINT32": ("uint_contents", "I"),
    "UINT64": ("uint64_contents", "Q"),
    "FP32": ("fp32_contents", "f"),
    "FP64": ("fp64_contents", "d"),
    "BYTES": ("bytes_contents", ""),
}
# The type that a field of typed contents is taken for where it is not expected.
_FIELD_TYPES = {
    "bool_contents": "BOOL",
    "int_contents": "INT32",
    "int64_contents": "INT64",
    "uint_contents": "UINT32",
    "uint64_contents": "UINT64",
    "fp32_contents": "FP32",
    "fp64_contents": "FP64",
    "bytes_contents": "BYTES",
}
_LENGTH = struct.Struct("<I")

Raw = bytes | memoryview


class Tensor(NamedTuple):
    """One tensor; its shape has the batch's side in front where the model takes batches."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: Raw


class Stated(NamedTuple):
    """A tensor of the configuration.

    Attributes:
        name: of it.
        datatype: of its elements.
        dims: its shape without the batch's side, -1 where any goes.
        reshape: the shape that the model sees instead, or None.
        optional: whether a request may leave it out.
    """

    name: str
    datatype: str
    dims: tuple[int, ...]
    reshape: tuple[int, ...] | None
    optional: bool


class Signature:
    """What a model takes and gives.

    Args:
        model: its name, for texts.
        inputs: by its configuration.
        outputs: likewise.
        max_batch: rows of the largest batch; 0 for a model that takes none.
    """

    def __init__(
        self, model: str, inputs: Sequence[Stated], outputs: Sequence[Stated], max_batch: int
    ):
        self.model = model
        self.inputs = {one.name: one for one in inputs}
        self.outputs = {one.name: one for one in outputs}
        self.max_batch = max_batch
        self._required = {one.name for one in inputs if not one.optional}

    def read(self, request: Any, raws: Sequence[Raw]) -> list[Tensor]:
        """The inputs of a ModelInferRequest, as the model sees them, in the configuration's order.

        Raises:
            Refused: they are not what the model takes.
        """
        by = who(request)
        named: dict[str, Any] = {}
        taken = 0
        for one in request.inputs:
            if one.name in named:
                raise invalid(f"{by}input '{one.name}' already exists in request")
            if "shared_memory_region" in one.parameters:
                region = one.parameters["shared_memory_region"].string_param
                raise not_found(f"Unable to find shared memory region: '{region}'")
            if raws:
                if one.HasField("contents"):
                    raise invalid(
                        "contents field must not be specified when using raw_input_contents for "
                        f"'{one.name}' for model '{self.model}'"
                    )
                if taken == len(raws):
                    raise self._no_data(one.name)
                raw = raws[taken]
                taken += 1
            else:
                raw = None
            named[one.name] = (one, raw)
        self._all_there(by, named)
        rows: int | None = None
        found = []
        for name, stated in self.inputs.items():
            if name not in named:
                continue
            one, raw = named[name]
            if one.datatype != stated.datatype:
                said = one.datatype if one.datatype in {*DATATYPES, "BF16"} else "<invalid>"
                raise invalid(
                    f"{by}inference input '{name}' data-type is '{said}', but model "
                    f"'{self.model}' expects '{stated.datatype}'"
                )
            shape = tuple(one.shape)
            self._fits(by, stated, shape)
            content = self._typed(one) if raw is None else raw
            self._whole(by, stated, shape, content)
            if self.max_batch:
                if rows not in {None, shape[0]}:
                    first = next(iter(named))
                    raise invalid(
                        f"{by}input '{first}' batch size does not match other inputs for "
                        f"'{self.model}'"
                    )
                rows = shape[0]
            found.append(Tensor(name, stated.datatype, self._as_model(stated, shape), content))
        if rows is not None and rows > self.max_batch:
            raise invalid(
                f"{by}inference request batch-size must be <= {self.max_batch} for '{self.model}'"
            )
        return found

    def wanted(self, request: Any) -> list[str]:
        """The outputs that a request wants, in the order of the configuration.

        Raises:
            Refused: there is no such output, or it is wanted in a way that this server has not.
        """
        for one in request.outputs:
            if one.name not in self.outputs:
                raise invalid(f"unexpected inference output '{one.name}' for model '{self.model}'")
            if "shared_memory_region" in one.parameters:
                region = one.parameters["shared_memory_region"].string_param
                raise not_found(f"Unable to find shared memory region: '{region}'")
            if "classification" in one.parameters:
                raise invalid(f"output '{one.name}': this server does not classify, Triton does")
        names = {one.name for one in request.outputs}
        return [name for name in self.outputs if not names or name in names]

    def as_asked(self, tensor: Tensor) -> Tensor:
        """An output in the shape that the configuration promises."""
        stated = self.outputs[tensor.name]
        if stated.reshape is None:
            return tensor
        batch = 1 if self.max_batch else 0
        shape = reshaped(tensor.shape[batch:], stated.reshape, stated.dims)
        return tensor._replace(shape=(*tensor.shape[:batch], *shape))

    def _all_there(self, by: str, named: dict[str, Any]) -> None:
        missing = sorted(self._required - named.keys())
        least, most = len(self._required), len(self.inputs)
        unknown = next((name for name in named if name not in self.inputs), None)
        if not least <= len(named) <= most or (missing and unknown is None):
            expected = f"{most}" if least == most else f"between {least} and {most}"
            raise invalid(
                f"{by}expected {expected} inputs but got {len(named)} inputs for model "
                f"'{self.model}'. Got input(s) {_listed(sorted(named))}, but missing required "
                f"input(s) {_listed(missing)}. Please provide all required input(s)."
            )
        if unknown is not None:
            raise invalid(f"unexpected inference input '{unknown}' for model '{self.model}'")

    def _no_data(self, name: str) -> Refused:
        return invalid(
            f"unable to find data for input tensor '{name}' for model '{self.model}' in request."
        )

    def _fits(self, by: str, stated: Stated, shape: tuple[int, ...]) -> None:
        if self.max_batch and not shape:
            raise invalid(
                f"{by}input '{stated.name}' has no shape but model requires batch dimension for "
                f"'{self.model}'"
            )
        dims = (-1, *stated.dims) if self.max_batch else stated.dims
        if len(shape) == len(dims) and all(
            want in {-1, side} for want, side in zip(dims, shape, strict=True)
        ):
            return
        note = (
            "NOTE: Setting a non-zero max_batch_size in the model config requires a batch "
            "dimension to be prepended to each input shape. If you want to specify the full shape "
            "including the batch dim in your input dims config, try setting max_batch_size to "
            "zero. See the model configuration docs for more info on max_batch_size."
            if self.max_batch
            else ""
        )
        raise invalid(
            f"{by}unexpected shape for input '{stated.name}' for model '{self.model}'. Expected "
            f"{_shape(dims)}, got {_shape(shape)}. {note}"
        )

    def _typed(self, one: Any) -> bytes:
        """The raw bytes of an input with typed contents."""
        field, code = _CONTENTS.get(one.datatype, ("", ""))
        for other, datatype in _FIELD_TYPES.items():
            if other != field and len(getattr(one.contents, other)):
                raise invalid(
                    f"unexpected explicit tensor data for input tensor '{one.name}' for model "
                    f"'{self.model}' of type '{datatype}', expected datatype '{one.datatype}'"
                )
        values = getattr(one.contents, field) if field else ()
        if not one.HasField("contents"):
            raise self._no_data(one.name)
        if one.datatype == "BYTES":
            return b"".join(_LENGTH.pack(len(value)) + value for value in values)
        try:
            return struct.pack(f"<{len(values)}{code}", *values)
        except struct.error:
            raise invalid(
                f"a value of input '{one.name}' for model '{self.model}' is no {one.datatype}"
            ) from None

    def _whole(self, by: str, stated: Stated, shape: tuple[int, ...], raw: Raw) -> None:
        """Refuse content that is not what the shape says."""
        if any(side < 0 for side in shape):
            raise invalid(
                f"{by}input '{stated.name}' for model '{self.model}' has a negative side in its "
                f"shape {_shape(shape)}"
            )
        if self.max_batch:
            shape = (max(1, shape[0]), *shape[1:])  # there is no batch of nothing
        count, name = math.prod(shape), stated.name
        if stated.datatype != "BYTES":
            size = count * DATATYPES[stated.datatype]
            if len(raw) != size:
                raise invalid(
                    f"{by}input byte size mismatch for input '{name}' for model '{self.model}'. "
                    f"Expected {size}, got {len(raw)}"
                )
            return
        there = 0
        for _ in _strings(by, name, raw):
            there += 1
            if there > count:
                raise invalid(
                    f"{by}unexpected number of string elements {there} for inference input "
                    f"'{name}' for model '{self.model}', expecting {count}"
                )
        if there < count:
            raise invalid(
                f"{by}expected {count} string elements for inference input '{name}' for model "
                f"'{self.model}', got {there}"
            )

    def _as_model(self, stated: Stated, shape: tuple[int, ...]) -> tuple[int, ...]:
        if stated.reshape is None:
            return shape
        batch = 1 if self.max_batch else 0
        return (*shape[:batch], *reshaped(shape[batch:], stated.dims, stated.reshape))


def who(request: Any) -> str:
    """How texts about a request begin."""
    return f"[request id: {request.id or '<id_unknown>'}] "


def reshaped(
    shape: tuple[int, ...], dims: tuple[int, ...], target: tuple[int, ...]
) -> tuple[int, ...]:
    """A shape that fits `dims` as `target` has it: its open sides take what is left for them."""
    is_open = [side for side in target if side == -1]
    if len(is_open) <= 1:
        known = math.prod(side for side in target if side != -1)
        rest = math.prod(shape) // known if known else 0
        return tuple(rest if side == -1 else side for side in target)
    # Several: the open ones of both in the same order.
    values = iter(side for side, want in zip(shape, dims, strict=True) if want == -1)
    return tuple(next(values, 1) if side == -1 else side for side in target)


def split(tensor: Tensor, rows: Sequence[int]) -> list[Tensor]:
    """An output of a batch apart again.

    Args:
        tensor: with as many rows as all of them.
        rows: of each part.
    """
    total = sum(rows)
    if tensor.datatype == "BYTES":
        ends = [0, *(end for _, end in _strings("", tensor.name, tensor.raw))]
        per_row = (len(ends) - 1) // total if total else 0
        cuts = [ends[per_row * row] for row in _sums(rows)]
    else:
        size = len(tensor.raw) // total if total else 0
        cuts = [size * row for row in _sums(rows)]
    return [
        tensor._replace(shape=(count, *tensor.shape[1:]), raw=tensor.raw[begin:end])
        for count, begin, end in zip(rows, cuts, cuts[1:], strict=False)
    ]


def _sums(rows: Iterable[int]) -> list[int]:
    found = [0]
    for count in rows:
        found.append(found[-1] + count)
    return found


def _strings(by: str, name: str, raw: Raw) -> Iterable[tuple[int, int]]:
    """Where each of the strings in raw bytes begins and ends.

    Raises:
        Refused: they end in the middle of one.
    """
    at = 0
    while at < len(raw):
        left = len(raw) - at - 4
        if left < 0:
            raise invalid(
                f"{by}incomplete string length indicator for inference input '{name}', expecting "
                f"4 bytes but only {left + 4} bytes available. Please make sure the string length "
                "indicator is in one buffer."
            )
        (length,) = _LENGTH.unpack_from(raw, at)
        if length > left:
            raise invalid(
                f"{by}incomplete string data for inference input '{name}', expecting string of "
                f"length {length} but only {left} bytes available"
            )
        at += 4 + length
        yield at - length, at


def _listed(names: Iterable[str]) -> str:
    return "[" + ",".join(f"'{name}'" for name in names) + "]"


def _shape(sides: Iterable[int]) -> str:
    return "[" + ",".join(map(str, sides)) + "]"
