"""Triton's gRPC protocol: each call as it is asked, answered by the models."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from mqinfer.stack.inferenceserver.config import datatype
from mqinfer.stack.inferenceserver.models import Models
from mqinfer.stack.inferenceserver.refused import (
    Refused,
    not_found,
    unavailable,
    unimplemented,
)
from mqinfer.stack.inferenceserver.served import Served
from mqinfer.stack.inferenceserver.tensors import Tensor

NAME = "mqinfer"
_EXTENSIONS = ("model_repository", "model_configuration", "binary_tensor_data", "statistics")
_FINAL = "triton_final_response"
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


class Service(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """What the server answers.

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
    async def ModelInfer(self, request: Any) -> Any:  # noqa: N802
        """Run a model."""
        return await self._infer(request)

    async def ModelStreamInfer(  # noqa: N802
        self, requests: AsyncIterator[Any], _context: Any
    ) -> AsyncIterator[Any]:
        """Run a model for each request of a stream: one answer each, in their order."""
        under_way: deque[asyncio.Task[Any]] = deque()
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

    async def _streamed(self, request: Any) -> Any:
        try:
            reply = await self._infer(request)
        except Refused as error:
            reply = pb.ModelInferResponse()
            if error.by_model:
                reply.model_name, reply.id = request.model_name, request.id
                reply.parameters[_FINAL].bool_param = True
            return pb.ModelStreamInferResponse(error_message=error.text, infer_response=reply)
        reply.parameters[_FINAL].bool_param = True
        return pb.ModelStreamInferResponse(infer_response=reply)

    async def _infer(self, request: Any) -> Any:
        served = self.models.find(request.model_name, request.model_version).served
        return _answer(served, request.id, await served.infer(request))

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


def _answer(served: Served, id: str, tensors: list[Tensor]) -> Any:  # noqa: A002
    return pb.ModelInferResponse(
        model_name=served.signature.model,
        model_version=str(served.version),
        id=id,
        outputs=[
            pb.ModelInferResponse.InferOutputTensor(
                name=one.name, datatype=one.datatype, shape=one.shape
            )
            for one in tensors
        ],
        raw_output_contents=[one.raw for one in tensors],
    )


def _require_one_repository(request: Any) -> None:
    if request.repository_name:
        raise unimplemented("'repository_name' specification is not supported")
