"""The little of Triton's HTTP that the stack and Prometheus ask: health, the index, the metrics.

Models are run by gRPC alone. What a browser sends for a page of somebody else is refused: a request
with an Origin, or for another host than this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from urllib.parse import unquote, urlsplit

from mqinfer.stack.inferenceserver.refused import Refused
from mqinfer.stack.inferenceserver.service import Service
from mqinfer.stack.inferenceserver.statistics import prometheus

_HOSTS = {"127.0.0.1", "localhost", "::1"}
_TYPE_METRICS = "text/plain; charset=utf-8; version=0.0.4"
_TYPE_JSON = "application/json"
# Seconds for a request to come in, bytes of its largest head and body.
_PATIENCE = 10.0
_HEAD, _BODY = 16_384, 1 << 20

Answer = tuple[int, str, str]  # status, type, text
Pages = Callable[[str, str], Awaitable[Answer]]


class ModelPages:
    """Health and the repository.

    Args:
        service: the server.
    """

    def __init__(self, service: Service):
        self._service = service

    async def __call__(self, method: str, path: str) -> Answer:
        """Answer a request."""
        match method, path.strip("/").split("/"):
            case "GET", ["v2", "health", "live"]:
                return 200, _TYPE_JSON, ""
            case "GET", ["v2", "health", "ready"]:
                return 200 if self._service.ready else 400, _TYPE_JSON, ""
            case "POST", ["v2", "repository", "index"]:
                return (
                    200,
                    _TYPE_JSON,
                    json.dumps([one._asdict() for one in self._service.models.index()]),
                )
            case "POST", ["v2", "repository", "models", name, "load" | "unload" as what]:
                change = self._service.load if what == "load" else self._service.unload
                try:
                    await change(unquote(name))
                except Refused as error:
                    return 400, _TYPE_JSON, json.dumps({"error": error.text})
                return 200, _TYPE_JSON, ""
        return 404, _TYPE_JSON, json.dumps({"error": f"there is no {method} {path} here"})


def metrics(service: Service) -> Pages:
    """What Prometheus reads."""

    async def answer(method: str, path: str) -> Answer:
        if (method, path) != ("GET", "/metrics"):
            return 404, "text/plain", "the metrics are at /metrics\n"
        return 200, _TYPE_METRICS, prometheus(service.models.statistics("", ""))

    return answer


async def serve(pages: Pages, host: str, port: int) -> asyncio.Server:
    """Listen; a connection is for one request.

    Raises:
        OSError: the port is taken.
    """

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # A peer that hangs up or dawdles is nobody's loss.
            with contextlib.suppress(
                OSError, TimeoutError, ValueError, asyncio.IncompleteReadError
            ):
                writer.write(await _answered(pages, reader))
                await asyncio.wait_for(writer.drain(), _PATIENCE)
        finally:
            writer.close()

    return await asyncio.start_server(connected, host, port, limit=_HEAD)


async def _answered(pages: Pages, reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(_PATIENCE):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        method, target, _ = first.split(" ")
        length = int(headers.get("content-length", "0"))
        if 0 <= length <= _BODY:
            await reader.readexactly(length)
    host = urlsplit(f"//{headers.get('host', '127.0.0.1')}").hostname
    if "origin" in headers or host not in _HOSTS:
        status, kind, text = 403, "text/plain", "this server is for programs of this machine\n"
    else:
        status, kind, text = await pages(method, target.partition("?")[0])
    body = text.encode()
    return (
        f"HTTP/1.1 {status} {'OK' if status == 200 else 'Error'}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode() + body
