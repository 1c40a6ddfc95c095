"""The streams of one Triton: requests that are answered with any number of replies.

Each has a connection's stream of its own (`ModelStreamInfer`), so that it is cancelled alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import grpc  # type: ignore[import-untyped]

from mqinfer.adapters import tritonwire
from mqinfer.adapters.tritonerrors import meaning, meaning_in_stream
from mqinfer.errors import Unavailable
from mqinfer.inference.calls import ModelDied
from mqinfer.ports import ModelReply


class Streams:
    """The streams under way on one server.

    Args:
        url: of the server.
    """

    def __init__(self, url: str):
        self._url = url
        self._under_way: dict[_Stream, str] = {}

    async def replies(self, model: str, call: Any) -> AsyncGenerator[ModelReply]:
        """What a model answers to one request.

        Args:
            model: its name.
            call: of gRPC, with the request.

        Raises:
            ModelError: an error instead of a reply, about this request.
            ModelUnavailable: the model is not ready, or died meanwhile.
            Unavailable: the server does not answer, or ended the stream before its last reply.
        """
        stream = _Stream(call)
        self._under_way[stream] = model
        try:
            while (found := await self._read(model, stream)) is not None:
                reply = found.infer_response
                if found.error_message:
                    raise self._error(model, stream, found)
                if reply.outputs:
                    yield ModelReply(tritonwire.outputs(model, reply), reply.model_version)
                if tritonwire.final(reply):
                    return
            raise Unavailable(f"triton at {self._url} ended the stream of {model} before its end")
        finally:
            del self._under_way[stream]
            call.cancel()  # one that is over is not changed by it

    def died(self, model: str, error: ModelDied, found_by: _Stream | None = None) -> None:
        """A model's process died: Triton tells its other streams nothing, which would wait."""
        for stream, name in self._under_way.items():
            if name == model and stream is not found_by:
                stream.error = error
                stream.call.cancel()

    async def _read(self, model: str, stream: _Stream) -> Any:
        """The next reply; None at the end of the connection's stream."""
        try:
            found = await stream.call.read()
        except grpc.aio.AioRpcError as error:
            raise meaning(error, model, self._url) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not the reader was cancelled, but what it reads.
            if stream.error is not None:
                raise stream.error from None
            raise Unavailable(f"triton at {self._url}: the connection was closed") from None
        return None if found is grpc.aio.EOF else found

    def _error(self, model: str, stream: _Stream, found: Any) -> Exception:
        reached = tritonwire.said_by_model(found.infer_response)
        error = meaning_in_stream(found.error_message, model, self._url, said_by_model=reached)
        if isinstance(error, ModelDied):
            self.died(model, error, stream)
        return error


class _Stream:
    """One of them, and what ended it from outside."""

    __slots__ = ("call", "error")

    def __init__(self, call: Any):
        self.call = call
        self.error: ModelDied | None = None
