"""What an error of Triton means: of the request, the model or the server; by code and words."""

from __future__ import annotations

import re

import grpc  # type: ignore[import-untyped]

from mqinfer.errors import (
    ConfigurationError,
    ModelError,
    ModelRejected,
    ModelUnavailable,
    MqinferError,
    Unavailable,
)
from mqinfer.inference.calls import ModelDied

# What Triton itself says, under these codes, when a model (not the server) cannot answer now. Both
# must fit: a model may use any words in errors of its own, and those are no outage to wait out.
_MODEL_NOT_READY = re.compile(
    r"request for unknown model|is not ready|is not available|no available versions|unloading"
    r"|exceeds maximum queue size|request timeout expired",
    re.IGNORECASE,
)
_MODEL_CODES = {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE}
# Codes that mean the server or the way to it, whatever the text.
_OUTAGE = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.ABORTED,
}
# A connection reset in the middle of a call comes as INTERNAL or UNKNOWN.
_CONNECTION_LOST = re.compile(
    r"rst_stream|connection reset|socket closed|broken pipe", re.IGNORECASE
)
# The operating system's word for a port that nobody has.
_REFUSED = re.compile(r"connection refused", re.IGNORECASE)
# Something else listens there: gRPC's own words for bytes that are none of HTTP/2.
_NO_GRPC = re.compile(r"failed parsing http/2", re.IGNORECASE)
# The repository may not be changed by requests: how the server was started forbids it, or a header
# is wanted.
_NO_CONTROL = re.compile(
    r"explicit model load / unload is not allowed|protocol is restricted", re.IGNORECASE
)
# A process of the Python backend died. Triton calls the model ready all the same, and does not
# start the process again before the model is loaded anew.
_MODEL_DIED = re.compile(r"stub process .* is not healthy", re.IGNORECASE)
# A model says of an item that it can never be answered (`packed.runtime.process`); mqinfer's own
# server has the model's name before it. What a model says by accident begins otherwise.
_REJECTED = re.compile(r"(?:[\w.-]+: )?rejected by the model: (.*)", re.DOTALL)


def meaning_in_stream(text: str, model: str, url: str, *, said_by_model: bool) -> MqinferError:
    """The error to raise for one that came as a reply of a stream, which has no code.

    Args:
        text: of the error.
        model: that was asked for.
        url: of the server.
        said_by_model: whether the request had reached the model, whose words mean nothing.
    """
    if rejected := _REJECTED.fullmatch(text):
        return ModelRejected(rejected[1])
    if _MODEL_DIED.search(text):
        return ModelDied(f"model {model} at {url}: {text}")
    if not said_by_model and _MODEL_NOT_READY.search(text):
        return ModelUnavailable(f"model {model} at {url}: {text}")
    return ModelError(f"model {model}: triton refused the request: {text}")


def meaning(error: grpc.aio.AioRpcError, model: str | None, url: str) -> MqinferError:
    """The error to raise.

    Args:
        error: of gRPC.
        model: that was asked for; None for a question about the server.
        url: of the server.
    """
    code, text = error.code(), (error.details() or "no details").strip()
    if model is not None and (rejected := _REJECTED.fullmatch(text)):
        return ModelRejected(rejected[1])
    if _NO_CONTROL.search(text):
        return ConfigurationError(
            f"triton at {url} does not let clients load models ({text}): start it with "
            "--model-control-mode=explicit --load-model=*, or restart it when a model's "
            "process died"
        )
    if model is not None and code in _MODEL_CODES and _MODEL_NOT_READY.search(text):
        return ModelUnavailable(f"model {model} at {url}: {text}")
    if model is not None and _MODEL_DIED.search(text):
        return ModelDied(f"model {model} at {url}: {text}")
    if model is None or code in _OUTAGE or _CONNECTION_LOST.search(text):
        if _REFUSED.search(text):
            return Unavailable(
                f"triton at {url}: nobody listens there: is it running (mqinfer up), and is "
                "MQINFER_TRITON_URL its address?"
            )
        if _NO_GRPC.search(text):
            return Unavailable(
                f"triton at {url}: what listens there does not speak gRPC: MQINFER_TRITON_URL is "
                "the port of the model server's gRPC endpoint, 8001 unless it was told otherwise"
            )
        return Unavailable(f"triton at {url}: {text} ({code.name})")
    return ModelError(f"model {model}: triton refused the request: {text}")
