"""Tensors on the way to Triton and back: straight from the arrays into the bytes of a request."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from tritonclient.grpc import service_pb2
from tritonclient.utils import (
    InferenceServerException,
    deserialize_bytes_tensor,
    np_to_triton_dtype,
    triton_to_np_dtype,
)

from mqinfer import varint
from mqinfer.errors import ModelError
from mqinfer.inference.tensors import Gathered

if TYPE_CHECKING:
    from mqinfer.model import Array

# The tag of `raw_input_contents` in ModelInferRequest: field 7, length-delimited.
_RAW_INPUT = bytes([(service_pb2.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3) | 2])


# Asks for a word at the end of a stream, perhaps in a reply without outputs.
_FINAL = "triton_final_response"
_SAY_FINAL = "triton_enable_empty_final_response"


def request(
    model: str, version: str | None, inputs: Mapping[str, Array], *, streamed: bool = False
) -> list[Any]:
    """The bytes of a ModelInferRequest in parts, the arrays as they are.

    The parts are joined once, so that each tensor is copied once, also those of a batch. The
    generated message would copy every tensor three times: into bytes, into the message, into its
    serialization (measured for eight 640x480 pictures: 35 ms, this way 0.2 ms). Protobuf allows
    fields in any order.
    """
    head = service_pb2.ModelInferRequest(model_name=model, model_version=version or "")
    if streamed:
        head.parameters[_SAY_FINAL].bool_param = True
    tensors: list[Any] = []
    for name in inputs:
        if isinstance(inputs, Gathered):
            rows = inputs.rows(name)
            shape: tuple[int, ...] = (len(rows), *rows[0].shape)
        else:
            rows = [inputs[name]]
            shape = rows[0].shape
        datatype = np_to_triton_dtype(rows[0].dtype)
        head.inputs.add(name=name, datatype=datatype, shape=shape)
        if datatype == "BYTES":
            strings = [_strings(row) for row in rows]
            tensors += (_RAW_INPUT, varint.write(sum(map(len, strings))), *strings)
        else:
            tensors += (_RAW_INPUT, varint.write(len(rows) * rows[0].nbytes))
            # A copy of those alone whose bytes do not lie in order, such as a transposed picture.
            tensors += map(np.ascontiguousarray, rows)
    return [head.SerializeToString(), *tensors]


def _strings(array: Array) -> bytes:
    """Strings as Triton wants them: each with its length in front."""
    parts: list[bytes] = []
    for item in array.ravel():
        text = item.encode() if isinstance(item, str) else bytes(item)
        parts += (struct.pack("<I", len(text)), text)
    return b"".join(parts)


def said_by_model(reply: Any) -> bool:
    """Whether a reply of a stream came from the model, rather than from the server before it."""
    return _FINAL in reply.parameters


def final(reply: Any) -> bool:
    """Whether it is the last of its stream."""
    return said_by_model(reply) and bool(reply.parameters[_FINAL].bool_param)


def outputs(model: str, reply: Any) -> dict[str, Array]:
    """The arrays of a ModelInferResponse.

    Raises:
        ModelError: it is not what its own declarations say.
    """
    if len(reply.raw_output_contents) != len(reply.outputs):
        raise ModelError(
            f"model {model}: the reply declares {len(reply.outputs)} outputs "
            f"and holds {len(reply.raw_output_contents)}"
        )
    found: dict[str, Array] = {}
    for tensor, content in zip(reply.outputs, reply.raw_output_contents, strict=True):
        dtype = triton_to_np_dtype(tensor.datatype)
        try:
            if tensor.datatype == "BYTES":
                flat = deserialize_bytes_tensor(content)
            else:
                flat = np.frombuffer(content, dtype=dtype)
            found[tensor.name] = flat.reshape(tuple(tensor.shape))
        except (ValueError, TypeError, struct.error, InferenceServerException) as error:
            raise ModelError(
                f"model {model}: output {tensor.name!r} in the reply cannot be read as "
                f"{tensor.datatype} {tuple(tensor.shape)}: {error}"
            ) from error
    return found
