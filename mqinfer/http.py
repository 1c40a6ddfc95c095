"""Health and metrics over HTTP: `/healthz`, `/readyz`, `/metrics`.

Alive means that the process should be left running; ready means that it can pull and publish now.
A worker that waits for a server that is down is alive and not ready. The server has a thread and an
event loop of its own: it answers also while a handler blocks the worker's, and says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from mqinfer.errors import ConfigurationError
from mqinfer.origin import own_pages_only

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_CLOSING = 2.0  # seconds that requests under way get when the server stops


async def serve_http(
    port: int,
    *,
    host: str = "127.0.0.1",
    live: Callable[[], str | None],
    ready: Callable[[], list[str]],
    metrics: Callable[[], bytes],
    started: Callable[[int], None] | None = None,
) -> None:
    """Serve until cancelled; signals are left to the caller.

    `live`, `ready` and `metrics` are called in the server's thread, `started` in the caller's.

    Args:
        port: to listen on; 0 takes a free one.
        host: address to listen on; "0.0.0.0" or "::" lets other machines in.
        live: None, or why the process should be restarted.
        ready: why no work can be done now; nothing when it can.
        metrics: Prometheus's text format.
        started: called with the port once requests are answered.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    import uvicorn

    class Server(uvicorn.Server):
        """uvicorn without its signal handlers."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            if started is not None:
                caller.call_soon_threadsafe(started, listener.getsockname()[1])

    caller = asyncio.get_running_loop()
    listener = _listen(host, port)
    try:
        config = uvicorn.Config(
            own_pages_only(
                _application(live, ready, metrics),
                any_host=not host.startswith(("127.", "::1", "localhost")),
                navigation=True,
            ),
            lifespan="off",
            loop="none",
            http="h11",
            ws="none",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=int(_CLOSING),
            limit_concurrency=64,
        )
        server = Server(config)
        ended: asyncio.Future[None] = caller.create_future()

        def serve() -> None:
            error: BaseException | None = None
            try:
                asyncio.run(server.serve(sockets=[listener]))
            except BaseException as problem:  # noqa: BLE001 - carried to the caller
                error = problem
            with contextlib.suppress(RuntimeError):  # the caller's loop has ended
                caller.call_soon_threadsafe(_end, ended, error)

        threading.Thread(target=serve, name="mqinfer-http", daemon=True).start()
        try:
            await asyncio.shield(ended)
        finally:
            server.should_exit = True  # looked at ten times a second
            await asyncio.wait({ended}, timeout=_CLOSING + 1)
    finally:
        listener.close()


def _end(ended: asyncio.Future[None], error: BaseException | None) -> None:
    if ended.done():
        return
    if error is None:
        ended.set_result(None)
    else:
        ended.set_exception(error)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ConfigurationError: the port is taken, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        if not 0 <= port <= 65535:
            raise OSError("ports are numbers from 0 to 65535")  # noqa: TRY301
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError(
            f"cannot serve HTTP on {host}:{port}: {reason}; choose another --http port"
        ) from None


def _application(
    live: Callable[[], str | None],
    ready: Callable[[], list[str]],
    metrics: Callable[[], bytes],
) -> Any:
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

    def answer(request: Request, word: str, reasons: list[str]) -> Response:
        status = 503 if reasons else 200
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse({word: not reasons, "reasons": reasons}, status)
        return PlainTextResponse("\n".join(reasons or [word]) + "\n", status)

    async def healthz(request: Request) -> Response:
        reason = live()
        return answer(request, "alive", [] if reason is None else [reason])

    async def readyz(request: Request) -> Response:
        # What keeps the process from living keeps it from working, too.
        reason = live()
        return answer(request, "ready", [*([] if reason is None else [reason]), *ready()])

    async def show(request: Request) -> Response:  # noqa: ARG001 - starlette's signature
        return Response(metrics(), media_type=METRICS_TYPE)

    async def failed(request: Request, error: Exception) -> Response:  # noqa: ARG001
        return PlainTextResponse(f"{type(error).__name__}: {error}\n", 500)

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", show),
        ],
        exception_handlers={Exception: failed},
    )
