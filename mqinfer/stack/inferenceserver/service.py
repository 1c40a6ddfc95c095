"""Triton's gRPC protocol: each call as it is asked, answered by the models."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.protobuf import message_factory
from tritonclient.grpc import service_pb2 as pb

from mqinfer.stack.inferenceserver import wire
from mqinfer.stack.inferenceserver.config import datatype
from mqinfer.stack.inferenceserver.models import Models
from mqinfer.stack.inferenceserver.refused import (
    Refused,
    not_found,
    unavailable,
    unimplemented,
)
from mqinfer.stack.inferenceserver.wire import Request

NAME = "mqinfer"
_EXTENSIONS = ("model_repository", "model_configuration", "binary_tensor_data", "statistics")
# Requests of one stream that are at work at a time.
_STREAM_AHEAD = 256
_NO_REGIONS = "this server takes tensors in requests alone, not in shared memory"


def answered(
    method: Callable[[Service, Any], Awaitable[Any]],
) -> Callable[[Service, Any, Any], Awaitable[Any]]:
    """A call of the protocol whose refusals become gRPC's errors."""

    @functools.wraps(method)
    async def answer(self: Service, request: Any, context: Any) -> Any:
        try:
            return await method(self, request)
        except Refused as error:
            await context.abort(error.code, error.text)

    return answer


class Service:
    """What the server answers; its methods that begin with a capital are the protocol's.

    Args:
        models: of its repository.
        version: of the server.
        control: whether models may be loaded and unloaded by calls.

    Attributes:
        models: as given.
        ready: whether it takes requests.
    """

    def __init__(self, models: Models, version: str, *, control: bool):
        self.models = models
        self.ready = True
        self._version = version
        self._control = control

    # --- the server and its models ----------------------------------------------------------------

    @answered
    async def ServerLive(self, _request: Any) -> Any:  # noqa: N802 - the protocol's; so below
        """It answers."""
        return pb.ServerLiveResponse(live=True)

    @answered
    async def ServerReady(self, _request: Any) -> Any:  # noqa: N802
        """Whether it takes requests."""
        return pb.ServerReadyResponse(ready=self.ready)

    @answered
    async def ServerMetadata(self, _request: Any) -> Any:  # noqa: N802
        """Who it is."""
        return pb.ServerMetadataResponse(name=NAME, version=self._version, extensions=_EXTENSIONS)

    @answered
    async def ModelReady(self, request: Any) -> Any:  # noqa: N802
        """Whether a request would be answered."""
        return pb.ModelReadyResponse(ready=self.models.is_ready(request.name, request.version))

    @answered
    async def ModelMetadata(self, request: Any) -> Any:  # noqa: N802
        """What a model takes and gives."""
        config = self.models.find(request.name, request.version).config
        batch = [-1] if config.max_batch_size else []
        inputs, outputs = (
            [
                pb.ModelMetadataResponse.TensorMetadata(
                    name=one.name, datatype=datatype(one), shape=[*batch, *one.dims]
                )
                for one in tensors
            ]
            for tensors in (config.input, config.output)
        )
        return pb.ModelMetadataResponse(
            name=request.name,
            versions=[request.version] if request.version else self.models.ready_of(request.name),
            platform=config.platform,
            inputs=inputs,
            outputs=outputs,
        )

    @answered
    async def ModelConfig(self, request: Any) -> Any:  # noqa: N802
        """A model's configuration, completed."""
        found = self.models.find(request.name, request.version)
        return pb.ModelConfigResponse(config=found.config)

    @answered
    async def ModelStatistics(self, request: Any) -> Any:  # noqa: N802
        """What was counted."""
        found = self.models.statistics(request.name, request.version)
        return pb.ModelStatisticsResponse(model_stats=[one.message() for one in found])

    # --- the repository ---------------------------------------------------------------------------

    @answered
    async def RepositoryIndex(self, request: Any) -> Any:  # noqa: N802
        """What is in the repository."""
        _require_one_repository(request)
        return pb.RepositoryIndexResponse(
            models=[
                pb.RepositoryIndexResponse.ModelIndex(**one._asdict())
                for one in self.models.index()
                if one.state == "READY" or not request.ready
            ]
        )

    @answered
    async def RepositoryModelLoad(self, request: Any) -> Any:  # noqa: N802
        """Load a model as its folder has it now."""
        _require_one_repository(request)
        if request.parameters:
            raise unimplemented(
                "this server loads models as their folders have them: write the configuration and "
                "the files there"
            )
        await self.load(request.model_name)
        return pb.RepositoryModelLoadResponse()

    @answered
    async def RepositoryModelUnload(self, request: Any) -> Any:  # noqa: N802
        """Serve a model no more."""
        _require_one_repository(request)
        await self.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    async def load(self, name: str) -> None:
        """Load a model; whoever asked for it may go, it is finished.

        Raises:
            Refused: it does not load, or the server takes no such calls.
        """
        self._require_control()
        await asyncio.shield(asyncio.create_task(self.models.load(name)))

    async def unload(self, name: str) -> None:
        """Unload a model; likewise.

        Raises:
            Refused: the server takes no such calls.
        """
        self._require_control()
        await asyncio.shield(asyncio.create_task(self.models.unload(name)))

    def _require_control(self) -> None:
        if not self._control:
            raise unavailable("explicit model load / unload is not allowed if polling is enabled")

    # --- inference --------------------------------------------------------------------------------

    @answered
    async def ModelInfer(self, request: Request) -> bytes:  # noqa: N802
        """Run a model."""
        return await self._infer(request)

    async def ModelStreamInfer(  # noqa: N802
        self, requests: AsyncIterator[Request], _context: Any
    ) -> AsyncIterator[bytes]:
        """Run a model for each request of a stream: one answer each, in their order."""
        under_way: deque[asyncio.Task[bytes]] = deque()
        more = asyncio.Event()
        room = asyncio.Semaphore(_STREAM_AHEAD)
        ended = False

        async def read() -> None:
            nonlocal ended
            async for request in requests:
                await room.acquire()
                under_way.append(asyncio.create_task(self._streamed(request)))
                more.set()
            ended = True
            more.set()

        reading = asyncio.create_task(read())
        try:
            while True:
                while under_way:
                    yield await under_way[0]
                    under_way.popleft()
                    room.release()
                if ended:
                    return
                more.clear()
                await more.wait()
        finally:
            reading.cancel()
            for task in under_way:
                task.cancel()
            await asyncio.gather(reading, *under_way, return_exceptions=True)

    async def _streamed(self, request: Request) -> bytes:
        try:
            return await self._infer(request, streamed=True)
        except Refused as error:
            return wire.refusal(error.text, request.message if error.by_model else None)

    async def _infer(self, request: Request, *, streamed: bool = False) -> bytes:
        found = self.models.find(request.message.model_name, request.message.model_version)
        return await found.infer(request, streamed=streamed)

    # --- what this server has not -----------------------------------------------------------------

    @answered
    async def SystemSharedMemoryStatus(self, request: Any) -> Any:  # noqa: N802
        """No region is ever registered; so for the other kind."""
        if request.name:
            raise not_found(f"Unable to find system shared memory region: '{request.name}'")
        return pb.SystemSharedMemoryStatusResponse()

    @answered
    async def CudaSharedMemoryStatus(self, request: Any) -> Any:  # noqa: N802
        """See `SystemSharedMemoryStatus`."""
        if request.name:
            raise not_found(f"Unable to find cuda shared memory region: '{request.name}'")
        return pb.CudaSharedMemoryStatusResponse()

    @answered
    async def SystemSharedMemoryRegister(self, _request: Any) -> Any:  # noqa: N802
        """Refused; so for the other kind."""
        raise unimplemented(_NO_REGIONS)

    @answered
    async def CudaSharedMemoryRegister(self, _request: Any) -> Any:  # noqa: N802
        """See `SystemSharedMemoryRegister`."""
        raise unimplemented(_NO_REGIONS)

    @answered
    async def SystemSharedMemoryUnregister(self, _request: Any) -> Any:  # noqa: N802
        """There is none, and so there is none afterwards; so for the other kind."""
        return pb.SystemSharedMemoryUnregisterResponse()

    @answered
    async def CudaSharedMemoryUnregister(self, _request: Any) -> Any:  # noqa: N802
        """See `SystemSharedMemoryUnregister`."""
        return pb.CudaSharedMemoryUnregisterResponse()

    @answered
    async def TraceSetting(self, _request: Any) -> Any:  # noqa: N802
        """Refused."""
        raise unimplemented("this server traces nothing")

    @answered
    async def LogSettings(self, _request: Any) -> Any:  # noqa: N802
        """Refused."""
        raise unimplemented("this server's log has no settings")


def _require_one_repository(request: Any) -> None:
    if request.repository_name:
        raise unimplemented("'repository_name' specification is not supported")


def handlers(service: Service) -> Any:
    """The service as gRPC takes it: each call's bytes to its message and back.

    Not the generated registration: inference has bytes of its own (see `wire`).
    """
    protocol = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    made = {}
    for method in protocol.methods:
        call = getattr(service, method.name)
        if method.name == "ModelInfer":
            made[method.name] = grpc.unary_unary_rpc_method_handler(call, wire.read, _as_it_is)
        elif method.name == "ModelStreamInfer":
            made[method.name] = grpc.stream_stream_rpc_method_handler(call, wire.read, _as_it_is)
        else:
            made[method.name] = grpc.unary_unary_rpc_method_handler(
                call,
                message_factory.GetMessageClass(method.input_type).FromString,
                message_factory.GetMessageClass(method.output_type).SerializeToString,
            )
    return grpc.method_handlers_generic_handler(protocol.full_name, made)


def _as_it_is(answer: bytes) -> bytes:
    return answer
