"""ClickHouse's HTTP interface over the chdb engine; runs as a process of its own.

``python -m mqinfer.stack.clickhouse --directory D --port P``. What
clickhouse-connect, Grafana and curl say to a ClickHouse server on port 8123 they
can say here. An INSERT is answered when its data are in the table's files.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from mqinfer.origin import own_pages_only
from mqinfer.stack.clickhouse.answer import Queries
from mqinfer.stack.clickhouse.engine import Engine
from mqinfer.stack.ports import HOST

# What is at work may go on as long, then it has as long to end.
_GRACE_SECONDS = 2.0
_PASSWORD_VARIABLE = "MQINFER_STACK_CLICKHOUSE_PASSWORD"
_HELP = """
Use / or /ping for health checks.
Or /replicas_status for more sophisticated health checks.

Send queries from your program with POST method or GET /?query=...
"""


async def ping(_request: HttpRequest) -> Response:
    """Say that the server lives."""
    return Response("Ok.\n", media_type="text/html; charset=UTF-8")


async def not_found(request: HttpRequest, _error: Exception) -> Response:
    """Say what there is."""
    return Response(f"There is no handle {request.url.path}\n{_HELP}", 404, media_type="text/plain")


def application(engine: Engine, user: str = "default", password: str = "") -> Starlette:
    """Give the ASGI application.

    Args:
        engine: Where queries go.
        user: The one user.
        password: Their password; empty lets everybody in, as ClickHouse's default does.
    """
    return Starlette(
        routes=[
            Route("/ping", ping, methods=["GET", "HEAD"]),
            Route("/replicas_status", ping, methods=["GET", "HEAD"]),
            Route("/", Queries(engine, user, password), methods=["GET", "HEAD", "POST", "OPTIONS"]),
        ],
        exception_handlers={404: not_found},
    )


class _Server(uvicorn.Server):
    """Ends the queries that are still at work a while after the signal that stops it."""

    engine: Engine

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take the signal."""
        super().handle_exit(sig, frame)
        end = threading.Timer(_GRACE_SECONDS, self.engine.processes.end_all, (_GRACE_SECONDS,))
        end.daemon = True
        end.start()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--user", default="default")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    # The password comes by the environment, as everybody can read command lines.
    password = os.environ.pop(_PASSWORD_VARIABLE, "")
    engine = Engine(arguments.directory)
    server = _Server(
        uvicorn.Config(
            own_pages_only(application(engine, arguments.user, password)),
            host=HOST,
            port=arguments.port,
            log_level="warning",
            access_log=False,
            lifespan="off",
            # Clients keep connections; ClickHouse's own default is 10 s as well.
            timeout_keep_alive=10,
            timeout_graceful_shutdown=int(2 * _GRACE_SECONDS),
            ws="none",
        )
    )
    server.engine = engine
    # uvicorn raises the signal that stopped it once more, to this handler; the files
    # are to be closed first.
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    try:
        server.run()
    finally:
        engine.close()
        # Threads still in a long query must not hold up the end.
        os._exit(0 if server.started else 1)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main()
