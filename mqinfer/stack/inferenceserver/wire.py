"""Requests and answers as bytes: tensors are copied once on either way, however large they are.

The generated messages copy a tensor three times in each direction. What is small goes through them
all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tritonclient.grpc import service_pb2 as pb

from mqinfer import varint
from mqinfer.stack.inferenceserver.tensors import Tensor

_DELIMITED = 2  # the wire type of what has its length in front
_FIXED = {1: 8, 5: 4}
_RAW_INPUT = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | _DELIMITED
_RAW_OUTPUT = pb.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER << 3 | _DELIMITED
_IN_STREAM = pb.ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER << 3 | _DELIMITED
_FINAL = "triton_final_response"
# Bytes of a request from which its tensors are left where they are.
_LARGE = 1 << 16


class Request(NamedTuple):
    """A ModelInferRequest, and its raw contents apart from it."""

    message: Any
    raws: Sequence[bytes | memoryview]


def read(data: bytes) -> Request:
    """A request from its bytes.

    Raises:
        DecodeError: protobuf's, these are no ModelInferRequest.
    """
    if len(data) < _LARGE:
        message = pb.ModelInferRequest.FromString(data)
        return Request(message, message.raw_input_contents)
    view, rest, raws, at = memoryview(data), [], [], 0
    try:
        while at < len(data):
            begin = at
            tag, at = varint.read(data, at)
            kind = tag & 7
            if kind == _DELIMITED:
                length, at = varint.read(data, at)
                end = at + length
            elif kind in _FIXED:
                end = at + _FIXED[kind]
            else:
                _, end = varint.read(data, at)
            if tag == _RAW_INPUT:
                raws.append(view[at:end])
            else:
                rest.append(view[begin:end])
            at = end
    except IndexError:
        at = -1
    if at != len(data):
        rest = [view]  # cut off: protobuf says so
    return Request(pb.ModelInferRequest.FromString(b"".join(rest)), raws)


def answer(
    model: str,
    version: int,
    id: str,  # noqa: A002
    tensors: Sequence[Tensor],
    *,
    streamed: bool,
) -> bytes:
    """The bytes of a ModelInferResponse, or of a stream's only one."""
    head = pb.ModelInferResponse(
        model_name=model,
        model_version=str(version),
        id=id,
        outputs=[
            pb.ModelInferResponse.InferOutputTensor(
                name=one.name, datatype=one.datatype, shape=one.shape
            )
            for one in tensors
        ],
    )
    if streamed:
        head.parameters[_FINAL].bool_param = True
    parts: list[bytes | memoryview] = [head.SerializeToString()]
    for one in tensors:
        parts += (varint.write(_RAW_OUTPUT), varint.write(len(one.raw)), one.raw)
    if streamed:
        size = sum(len(part) for part in parts)
        parts[:0] = (varint.write(_IN_STREAM), varint.write(size))
    return b"".join(parts)


def refusal(text: str, by: Any = None) -> bytes:
    """The bytes of a stream's answer that is an error; `by`: the request, if its model said so."""
    reply = pb.ModelInferResponse()
    if by is not None:
        reply.model_name, reply.id = by.model_name, by.id
        reply.parameters[_FINAL].bool_param = True
    message = pb.ModelStreamInferResponse(error_message=text, infer_response=reply)
    return bytes(message.SerializeToString())
