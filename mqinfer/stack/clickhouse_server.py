"""ClickHouse's HTTP interface over the chdb engine; runs as a process of its own.

``python -m mqinfer.stack.clickhouse_server --directory D --port P``. What
clickhouse-connect, Grafana and curl say to a ClickHouse server on port 8123 they
can say here. An INSERT is answered when its data are in the table's files.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import concurrent.futures
import hmac
import json
import os
import signal
import uuid
from collections.abc import Mapping
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from mqinfer.origin import own_pages_only
from mqinfer.stack import clickhouse_codec as codec
from mqinfer.stack.clickhouse_engine import Answer, Engine, EngineError, Request
from mqinfer.stack.ports import HOST

# Long queries must not keep the short ones waiting; beyond this they do.
_THREADS = 64
_PASSWORD_VARIABLE = "MQINFER_STACK_CLICKHOUSE_PASSWORD"

# URL parameters that are not settings of the engine.
_NOT_SETTINGS = frozenset(
    {
        "add_http_cors_header",
        "buffer_size",
        "cancel_http_readonly_queries_on_client_close",
        "client_protocol_version",
        "close_session",
        "compress",
        "database",
        "decompress",
        "default_format",
        "enable_http_compression",
        "http_headers_progress_interval_ms",
        "http_make_head_request",
        "http_write_exception_in_output_format",
        "http_zlib_compression_level",
        "password",
        "query",
        "query_id",
        "quota_key",
        "role",
        "send_progress_in_http_headers",
        "session_check",
        "session_id",
        "session_timeout",
        "stacktrace",
        "user",
        "wait_end_of_query",
    }
)
# As ClickHouse's exceptionCodeToHTTPStatus; what is not here is 500.
_STATUS = {
    **dict.fromkeys((192, 193, 497, 516), 403),
    **dict.fromkeys((46, 47, 50, 56, 60, 63, 73, 81, 108, 115, 372), 404),
    **dict.fromkeys(
        (6, 7, 8, 15, 16, 26, 27, 38, 41, 42, 43, 53, 62, 69, 70, 72, 117, 130, 131, 173, 456), 400
    ),
    48: 501,
    439: 503,
}
_CONTENT_TYPES = {
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONStrings": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "JSONCompactEachRow": "application/x-ndjson; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "Native": "application/octet-stream",
    "RowBinary": "application/octet-stream",
    "RowBinaryWithNamesAndTypes": "application/octet-stream",
    "Parquet": "application/octet-stream",
    "Arrow": "application/octet-stream",
    "ArrowStream": "application/octet-stream",
    "XML": "application/xml; charset=UTF-8",
}


class HttpInterface:
    """The handlers of the interface.

    Args:
        engine: Where queries go.
        user: The one user.
        password: Their password; empty lets everybody in, as ClickHouse's default does.
    """

    def __init__(self, engine: Engine, user: str = "default", password: str = "") -> None:
        self._engine = engine
        self._user = user
        self._password = password
        self._threads = concurrent.futures.ThreadPoolExecutor(_THREADS, "query")

    def application(self) -> Starlette:
        """Give the ASGI application."""
        return Starlette(
            routes=[
                Route("/ping", self.ping, methods=["GET", "HEAD"]),
                Route("/replicas_status", self.ping, methods=["GET", "HEAD"]),
                Route("/", self.query, methods=["GET", "HEAD", "POST"]),
            ]
        )

    async def ping(self, _request: HttpRequest) -> Response:
        """Say that the server lives."""
        return Response("Ok.\n", media_type="text/html; charset=UTF-8")

    async def query(self, http: HttpRequest) -> Response:
        """Answer one query."""
        parameters = dict(http.query_params)
        query_id = parameters.get("query_id") or str(uuid.uuid4())
        headers = {
            "X-ClickHouse-Query-Id": query_id,
            "X-ClickHouse-Timezone": self._engine.timezone,
            "X-ClickHouse-Server-Display-Name": "mqinfer",
        }
        try:
            self._authenticate(http)
            if http.method in ("GET", "HEAD") and "query" not in parameters:
                return Response("Ok.\n", media_type="text/html; charset=UTF-8")
            body = await http.body()
            loop = asyncio.get_running_loop()
            answer, data, encoding = await loop.run_in_executor(
                self._threads, self._answer, http.method, parameters, http.headers, body
            )
        except ClientDisconnect:
            return Response(status_code=400)
        except EngineError as error:
            headers["X-ClickHouse-Exception-Code"] = str(error.code)
            return Response(
                f"{error}\n",
                status_code=_STATUS.get(error.code, 500),
                headers=headers,
                media_type="text/plain; charset=UTF-8",
            )
        headers["X-ClickHouse-Format"] = answer.format
        headers["X-ClickHouse-Summary"] = _summary(answer)
        if encoding:
            headers["Content-Encoding"] = encoding
        media_type = _CONTENT_TYPES.get(answer.format, "text/tab-separated-values; charset=UTF-8")
        return Response(data, headers=headers, media_type=media_type)

    def _answer(
        self, method: str, parameters: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> tuple[Answer, bytes, str]:
        """Do the work of one request, in a thread."""
        if headers.get("content-type", "").startswith("multipart/"):
            raise EngineError("External tables are not supported here. (NOT_IMPLEMENTED)", 48)
        if parameters.get("decompress") == "1" or parameters.get("compress") == "1":
            raise EngineError(
                "ClickHouse's own block compression is not supported here: use "
                "Content-Encoding and Accept-Encoding. (NOT_IMPLEMENTED)",
                48,
            )
        try:
            body = codec.decompress(body, headers.get("content-encoding", ""))
        except codec.CodecError as error:
            raise EngineError(f"{error} (CANNOT_DECOMPRESS)", 271) from error
        answer = self._engine.execute(_request(method, parameters, headers, body))
        encoding = ""
        if _is_true(parameters.get("enable_http_compression", "0")):
            encoding = codec.choose(headers.get("accept-encoding", ""))
        data = codec.compress(answer.data, encoding) if encoding else answer.data
        return answer, data, encoding

    def _authenticate(self, http: HttpRequest) -> None:
        user, password = self._user, ""
        header = http.headers.get("authorization", "")
        if header.lower().startswith("basic "):
            try:
                user, _, password = base64.b64decode(header[6:]).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError) as error:
                raise EngineError("Invalid Authorization header. (BAD_ARGUMENTS)", 36) from error
        elif "x-clickhouse-user" in http.headers:
            user = http.headers["x-clickhouse-user"]
            password = http.headers.get("x-clickhouse-key", "")
        elif "user" in http.query_params:
            user = http.query_params["user"]
            password = http.query_params.get("password", "")
        right = hmac.compare_digest(password.encode(), self._password.encode())
        if (user or self._user) != self._user or not right:
            raise EngineError(
                f"{user}: Authentication failed: password is incorrect, or there is no user "
                "with such name. (AUTHENTICATION_FAILED)",
                516,
            )


def _request(
    method: str, parameters: Mapping[str, str], headers: Mapping[str, str], body: bytes
) -> Request:
    default_format = parameters.get("default_format") or headers.get("x-clickhouse-format")
    try:
        session_timeout = float(parameters.get("session_timeout", "60"))
    except ValueError as error:
        raise EngineError("Invalid session_timeout. (INVALID_SESSION_TIMEOUT)", 374) from error
    return Request(
        query=parameters.get("query", "").encode(),
        body=body,
        database=parameters.get("database") or headers.get("x-clickhouse-database", ""),
        default_format=default_format or "TabSeparated",
        settings={
            name: value
            for name, value in parameters.items()
            if name not in _NOT_SETTINGS and not name.startswith("param_")
        },
        parameters={
            name.removeprefix("param_"): value
            for name, value in parameters.items()
            if name.startswith("param_")
        },
        session_id=parameters.get("session_id", ""),
        session_timeout=session_timeout,
        session_check=parameters.get("session_check") == "1",
        read_only=method != "POST",
    )


def _summary(answer: Answer) -> str:
    """Write the counts as ClickHouse does: numbers as strings."""
    return json.dumps(
        {
            "read_rows": str(answer.read_rows),
            "read_bytes": str(answer.read_bytes),
            "written_rows": str(answer.written_rows),
            "written_bytes": str(answer.written_bytes),
            "total_rows_to_read": "0",
            "result_rows": str(answer.written_rows),
            "result_bytes": str(len(answer.data) or answer.written_bytes),
            "elapsed_ns": str(int(answer.elapsed * 1e9)),
        },
        separators=(",", ":"),
    )


def _is_true(value: str) -> bool:
    return value.lower() in ("1", "true")


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
    interface = HttpInterface(engine, arguments.user, password)
    server = uvicorn.Server(
        uvicorn.Config(
            own_pages_only(interface.application()),
            host=HOST,
            port=arguments.port,
            log_level="warning",
            access_log=False,
            lifespan="off",
            # Clients keep connections; ClickHouse's own default is 10 s as well.
            timeout_keep_alive=10,
            timeout_graceful_shutdown=3,
            ws="none",
        )
    )
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
