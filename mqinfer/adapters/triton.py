"""Triton over gRPC: the only file that imports tritonclient.

Requests are written by the generated messages of tritonclient, except for the tensors themselves:
those go straight from the arrays into the bytes of the request (see `tritonwire`).
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import grpc  # type: ignore[import-untyped]
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import (
    triton_to_np_dtype,
)

from mqinfer.adapters import tritonwire
from mqinfer.adapters.addresses import Addresses, is_host_and_port
from mqinfer.adapters.refusal import refusal
from mqinfer.adapters.spread import Spread
from mqinfer.adapters.tritonerrors import meaning
from mqinfer.adapters.tritonstream import Streams
from mqinfer.errors import (
    ConfigurationError,
    ModelError,
    ModelUnavailable,
    MqinferError,
    Unavailable,
)
from mqinfer.inference.calls import ModelDied
from mqinfer.inference.reasons import why
from mqinfer.ports import ModelInfo, ModelReply, ModelVersion, TensorInfo

if TYPE_CHECKING:
    from mqinfer.model import Array

T = TypeVar("T")

_OPTIONS: tuple[tuple[str, int | str], ...] = (
    # gRPC's own 4 MB is less than one picture; what bounds a request is the batcher.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Pings only while a request waits, and two without data at most: servers close connections
    # that ping more.
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 2),
    # Back soon after the server is: work is to go on within two seconds.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 500),
    # A connection of its own: what one client learned of a dead server does not slow another.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)

# Seconds that loading a model may take.
_LOAD_SECONDS = 600.0


class TritonClient:
    """An inference server that speaks Triton's gRPC protocol.

    Connects when first used, and again by itself after an outage. Every method may be called again
    after it raised.

    Args:
        url: `host:port`; `grpcs://host:port` for TLS with the system's certificates.
        tls_ca: file with the certificates to trust; turns TLS on.
        tls_cert: file with the client's own certificate, for mutual TLS.
        tls_key: file with its key.
        timeout: seconds that each question of `ready` and `describe` may take.
        keepalive: seconds of silence, while a request waits, after which the server is asked for a
            sign of life, and seconds that the sign may take. A server that died without a word
            (power, network, a stopped process) is noticed within twice that.
        headers: sent with every call, as gRPC's metadata: what a gateway in front wants to see.
        name: that its certificate and its gateway know it by, where the URL holds an address that
            was found under this name.

    Raises:
        ConfigurationError: the URL or a TLS file cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        tls_ca: Path | str | None = None,
        tls_cert: Path | str | None = None,
        tls_key: Path | str | None = None,
        timeout: float = 3.0,
        keepalive: float = 5.0,
        headers: Mapping[str, str] | None = None,
        name: str | None = None,
    ):
        files = (tls_ca, tls_key, tls_cert)
        scheme, _, address = url.rpartition("://")
        if scheme not in {"", "grpc", "grpcs"} or not is_host_and_port(address):
            raise ConfigurationError(
                f"the Triton URL {url!r} is not host:port, grpc://host:port or grpcs://host:port "
                "(the port is that of gRPC, 8001 by default)"
            )
        try:
            tls = [None if file is None else Path(file).read_bytes() for file in files]
        except OSError as error:
            raise ConfigurationError(f"a TLS file for Triton cannot be read: {error}") from error
        self.url = url
        self._address = address
        self._tls = tls if scheme == "grpcs" or any(files) else None
        self._timeout = timeout
        self._metadata = tuple((headers or {}).items()) or None
        named = (
            ()
            if name is None
            else (
                ("grpc.ssl_target_name_override", name),
                ("grpc.default_authority", f"{name}:{address.rpartition(':')[2]}"),
            )
        )
        self._options = (
            *_OPTIONS,
            *named,
            ("grpc.keepalive_time_ms", int(keepalive * 1000)),
            ("grpc.keepalive_timeout_ms", int(keepalive * 1000)),
            # Without this one gRPC gives an unanswered ping a minute, whatever the other says.
            ("grpc.http2.ping_timeout_ms", int(keepalive * 1000)),
        )
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None
        self._infer: Any = None
        self._stream: Any = None
        self._streams = Streams(url)

    async def ready(self) -> None:
        """Return if the server is ready.

        Raises:
            Unavailable: why it is not.
        """
        self._connect()
        reply = await self._call(
            self._stub.ServerReady, service_pb2.ServerReadyRequest(), self._timeout, None
        )
        if not reply.ready:
            raise Unavailable(f"triton at {self.url} answers that it is not ready")

    async def describe(self, model: str, version: str | None = None) -> ModelInfo:
        """The model's metadata.

        Raises:
            ModelUnavailable: not served, not loaded, or its version is not there.
            Unavailable: the server does not answer.
            ModelError: the server's answer makes no sense.
        """
        self._connect()
        name = {"name": model, "version": version or ""}
        stub, timeout = self._stub, self._timeout
        state = await self._call(
            stub.ModelReady, service_pb2.ModelReadyRequest(**name), timeout, model
        )
        if not state.ready:
            raise ModelUnavailable(await self._absent(model, version))
        metadata = await self._call(
            stub.ModelMetadata, service_pb2.ModelMetadataRequest(**name), timeout, model
        )
        reply = await self._call(
            stub.ModelConfig, service_pb2.ModelConfigRequest(**name), timeout, model
        )
        config = reply.config
        batched = config.max_batch_size > 0
        optional = {tensor.name for tensor in config.input if tensor.optional}
        return ModelInfo(
            name=model,
            versions=tuple(sorted(metadata.versions, key=_version_order)),
            inputs=tuple(_tensor(model, t, batched, t.name in optional) for t in metadata.inputs),
            outputs=tuple(_tensor(model, t, batched, False) for t in metadata.outputs),
            max_batch_size=config.max_batch_size,
            # A group without GPUs is on all of them; then there are more than these.
            instances=sum(group.count * max(1, len(group.gpus)) for group in config.instance_group),
            decoupled=config.model_transaction_policy.decoupled,
            refusal=refusal(model, sequence=config.HasField("sequence_batching")),
        )

    async def _absent(self, model: str, version: str | None) -> str:
        """Why a model, or a version of it, is not ready, as far as the server says."""
        which = model if version is None else f"{model} version {version}"
        text = f"model {which} is not ready at {self.url}: "
        try:
            listed = await self.versions()
        except MqinferError:
            return f"{text}it is not in the repository or did not load"
        ours = [one for one in listed if one.model == model]
        found = [one for one in ours if version in (None, one.version) or not one.version]
        reasons = ", ".join(dict.fromkeys(one.reason for one in found if not one.ready))
        served = ", ".join(one.version for one in ours if one.ready)
        text += reasons or "it is not in the repository"
        if served:
            return f"{text}; it serves {served}"
        near = [] if ours else difflib.get_close_matches(model, {one.model for one in listed}, n=1)
        return f"{text}; did you mean {near[0]}?" if near else text

    async def versions(self) -> list[ModelVersion]:
        """What is in the model repository, ready or not, the versions of a model in order.

        Raises:
            Unavailable: the server does not answer, or does not say.
        """
        self._connect()
        reply = await self._call(
            self._stub.RepositoryIndex, service_pb2.RepositoryIndexRequest(), self._timeout, None
        )
        found = [
            ModelVersion(one.name, one.version, one.state == "READY", _why_not(one))
            for one in reply.models
        ]
        return sorted(found, key=lambda one: (one.model, _version_order(one.version)))

    async def reload(self, model: str) -> None:
        """Load a model anew, whose process died; the server calls it ready: it is unloaded before.

        Several clients may do so at once: what one has unloaded the others only load, which changes
        nothing once it is loaded.

        Raises:
            ConfigurationError: the server does not allow it.
            ModelError: it does not load.
            Unavailable: the server does not answer.
        """
        self._connect()
        stub, name = self._stub, {"model_name": model}
        state = await self._call(
            stub.ModelReady, service_pb2.ModelReadyRequest(name=model), self._timeout, model
        )
        if state.ready:
            unload = service_pb2.RepositoryModelUnloadRequest(**name)
            await self._call(stub.RepositoryModelUnload, unload, _LOAD_SECONDS, model)
        load = service_pb2.RepositoryModelLoadRequest(**name)
        await self._call(stub.RepositoryModelLoad, load, _LOAD_SECONDS, model)

    async def infer(
        self, model: str, version: str | None, inputs: Mapping[str, Array], *, timeout: float | None
    ) -> ModelReply:
        """Run one request; the arrays carry the batch dimension if the model has one.

        A cancelled call cancels the request on the server.

        Raises:
            ModelError: the server refused this request for what is in it.
            ModelUnavailable: the model is not ready (unloaded, unknown version, `ModelDied`).
            Unavailable: the server does not answer, or not within `timeout` seconds (None: a model
                may take any time).
        """
        self._connect()
        request = tritonwire.request(model, version, inputs)
        try:
            reply = await self._call(self._infer, request, timeout, model)
        except ModelDied as error:
            self._streams.died(model, error)
            raise
        return ModelReply(tritonwire.outputs(model, reply), reply.model_version)

    async def stream(
        self, model: str, version: str | None, inputs: Mapping[str, Array]
    ) -> AsyncGenerator[ModelReply]:
        """Run one request that is answered with any number of replies; see `InferenceServer`.

        A model's process that dies meanwhile is noticed by the next request to it: Triton does not
        tell those whose replies it had begun with.
        """
        self._connect()
        request = tritonwire.request(model, version, inputs, streamed=True)
        try:
            call = self._stream([request], metadata=self._metadata)
        except grpc.aio.UsageError as error:
            raise Unavailable(f"triton at {self.url}: the connection was closed: {error}") from None
        async with aclosing(self._streams.replies(model, call)) as replies:
            async for reply in replies:
                yield reply

    async def close(self) -> None:
        """Release the connection; the next call opens another."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    def __repr__(self) -> str:
        state = "not connected" if self._channel is None else "open"
        return f"TritonClient({self.url!r}, {state})"

    def _connect(self) -> None:
        # Not in the constructor: a channel belongs to the event loop that runs when it is made.
        if self._channel is not None:
            return
        if self._tls is not None:
            credentials = grpc.ssl_channel_credentials(*self._tls)
            self._channel = grpc.aio.secure_channel(
                self._address, credentials, options=self._options
            )
        else:
            self._channel = grpc.aio.insecure_channel(self._address, options=self._options)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._infer = self._channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=b"".join,
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )
        self._stream = self._channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=b"".join,
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )

    async def _call(
        self,
        method: Callable[..., Awaitable[T]],
        request: object,
        timeout: float | None,
        model: str | None,
    ) -> T:
        try:
            # The outer bound holds even if gRPC's own does not fire; it never should.
            async with asyncio.timeout(None if timeout is None else timeout + 5.0):
                return await method(request, timeout=timeout, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise meaning(error, model, self.url) from None
        except TimeoutError:
            raise Unavailable(
                f"triton at {self.url} does not answer within {timeout:g} s"
            ) from None
        except grpc.aio.UsageError as error:
            raise Unavailable(f"triton at {self.url}: the connection was closed: {error}") from None


def _why_not(one: Any) -> str:
    if one.state == "READY":
        return ""
    return why(one.reason, one.version or one.state) or one.state.lower() or "not loaded"


def _version_order(version: str) -> tuple[int, str]:
    return (int(version) if version.isdigit() else -1, version)


def _tensor(model: str, tensor: Any, batched: bool, optional: bool) -> TensorInfo:
    dtype = triton_to_np_dtype(tensor.datatype)
    if dtype is None:
        raise ModelError(
            f"model {model}: tensor {tensor.name!r} has the type {tensor.datatype}, "
            "which has no NumPy counterpart"
        )
    shape = tuple(tensor.shape)
    return TensorInfo(tensor.name, np.dtype(dtype), shape[1:] if batched else shape, optional)


# --- several servers ----------------------------------------------------------------------------


def open_triton(
    url: str,
    *,
    tls_ca: Path | str | None = None,
    tls_cert: Path | str | None = None,
    tls_key: Path | str | None = None,
    timeout: float = 3.0,
    keepalive: float = 5.0,
    headers: Mapping[str, str] | None = None,
) -> TritonClient | Spread:
    """The client of one server, or of several that are used as one; connects when first used.

    Args:
        url: as `TritonClient` takes it, or several, separated by commas. A name with several
            addresses is several servers, too.
        tls_ca: this and all others as for `TritonClient`, for each of them.
        tls_cert: likewise.
        tls_key: likewise.
        timeout: likewise.
        keepalive: likewise.
        headers: likewise.

    Raises:
        ConfigurationError: a URL or a TLS file cannot be used.
    """

    def connect(one: str, name: str | None = None) -> TritonClient:
        return TritonClient(
            one,
            tls_ca=tls_ca,
            tls_cert=tls_cert,
            tls_key=tls_key,
            timeout=timeout,
            keepalive=keepalive,
            headers=headers,
            name=name,
        )

    urls = list(dict.fromkeys(one.strip() for one in url.split(",")))
    clients = [connect(one) for one in urls]  # so that what cannot be used is refused here
    addresses = Addresses(urls)
    if len(clients) == 1 and addresses.fixed:
        return clients[0]
    return Spread(addresses.look, connect, fixed=addresses.fixed)


TritonServer = open_triton  # the name that the client had; stays for a release
