"""Answers of the HTTP interface: headers, the answer as it comes, errors wherever they come.

The first megabyte is kept back, as ClickHouse keeps it: what fails before is an error with its
status. What fails later is told at the end of the body, and the connection is broken off.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import string
import tempfile
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import IO, Any

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from mqinfer.stack.clickhouse import codec
from mqinfer.stack.clickhouse.engine import Engine, Query
from mqinfer.stack.clickhouse.errors import EngineError
from mqinfer.stack.clickhouse.processes import MOST_QUERIES
from mqinfer.stack.clickhouse.request import Incoming, authenticate, is_true

_KEPT_BACK_BYTES = 1 << 20
_PIECE_BYTES = 1 << 18
_MOST_PROGRESS = 20  # headers: Node takes 16 kB of them altogether
_DISPLAY_NAME = "mqinfer"
_OK = "text/html; charset=UTF-8"
_CONTENT_TYPES = {
    **dict.fromkeys(
        ("JSON", "JSONCompact", "JSONStrings", "JSONCompactStrings", "JSONColumns",
         "JSONCompactColumns", "JSONColumnsWithMetadata", "JSONObjectEachRow"),
        "application/json; charset=UTF-8",
    ),
    **dict.fromkeys(
        ("JSONEachRow", "JSONCompactEachRow", "JSONStringsEachRow", "JSONCompactStringsEachRow",
         "JSONCompactEachRowWithNames", "JSONCompactEachRowWithNamesAndTypes",
         "JSONEachRowWithProgress", "JSONLines", "NDJSON"),
        "application/x-ndjson; charset=UTF-8",
    ),
    "CSV": "text/csv; charset=UTF-8; header=absent",
    **dict.fromkeys(
        ("CSVWithNames", "CSVWithNamesAndTypes"), "text/csv; charset=UTF-8; header=present"
    ),
    **dict.fromkeys(
        ("Native", "RowBinary", "RowBinaryWithNames", "RowBinaryWithNamesAndTypes", "Parquet",
         "Arrow", "ArrowStream", "ORC", "Avro", "MsgPack"),
        "application/octet-stream",
    ),
    "XML": "application/xml; charset=UTF-8",
}  # fmt: skip
_TEXT = "text/tab-separated-values; charset=UTF-8"


class Queries:
    """The ASGI application that answers queries.

    Args:
        engine: Where they go.
        user: The one user.
        password: Theirs.
    """

    def __init__(self, engine: Engine, user: str, password: str) -> None:
        self._engine = engine
        self._user = user
        self._password = password
        # A query holds one, and another one ends it.
        self._threads = ThreadPoolExecutor(2 * MOST_QUERIES, "query")

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(function, *arguments))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        http = HttpRequest(scope, receive)
        query_id = http.query_params.get("query_id") or str(uuid.uuid4())
        headers = {
            "X-ClickHouse-Query-Id": _header(query_id),
            "X-ClickHouse-Timezone": _header(
                http.query_params.get("session_timezone") or self._engine.timezone
            ),
            "X-ClickHouse-Server-Display-Name": _DISPLAY_NAME,
        }
        if http.method == "OPTIONS":
            return await Response(headers=headers)(scope, receive, send)
        try:
            authenticate(http, self._user, self._password)
            if http.method in ("GET", "HEAD") and "query" not in http.query_params:
                return await Response("Ok.\n", media_type=_OK)(scope, receive, send)
            with Incoming(http, query_id, self._engine.spool, self._in_thread) as incoming:
                request = await incoming.read()
                # A thread costs as much as a small query: one for all of it, where nothing waits.
                if request.replace:
                    query = await self._in_thread(self._engine.open, request)
                else:
                    query = self._engine.open(request)
                try:
                    answer = Answer(http, query, headers, incoming.parameters, self._in_thread)
                    await self._watched(answer.send, query, receive, send)
                finally:
                    if query.over:
                        query.close()
                    else:
                        await asyncio.shield(self._in_thread(query.close))
        except ClientDisconnect:
            return None
        except EngineError as error:
            return await _refusal(error, headers)(scope, receive, send)
        return None

    async def _watched(self, answer: Any, query: Query, receive: Any, send: Any) -> None:
        """Answer, and end the query when nobody waits for it any longer."""

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            await self._in_thread(query.abandon)

        watcher = asyncio.create_task(watch())
        try:
            await answer(send)
        finally:
            watcher.cancel()


class Answer:
    """The answer to one query.

    Args:
        http: The request.
        query: Begun.
        headers: That every answer has.
        parameters: Of the request.
        in_thread: Runs a function that waits for the engine.
    """

    def __init__(
        self,
        http: HttpRequest,
        query: Query,
        headers: dict[str, str],
        parameters: dict[str, str],
        in_thread: Callable[..., Awaitable[Any]],
    ) -> None:
        self._http = http
        self._query = query
        self._headers = headers
        self._parameters = parameters
        self._in_thread = in_thread
        self._framed = is_true(parameters, "compress")
        self._encoding = ""
        if is_true(parameters, "enable_http_compression"):
            self._encoding = codec.choose(http.headers.get("accept-encoding", ""))
        self._encoders: list[codec.Encoder] = [codec.FrameEncoder()] if self._framed else []
        self._encoders += [codec.encoder(self._encoding)] if self._encoding else []
        self._progress: deque[str] = deque(maxlen=_MOST_PROGRESS)
        self._complete = False  # the first piece is all of it
        self._tag = "".join(secrets.choice(string.ascii_lowercase) for _ in range(16))

    async def send(self, send: Any) -> None:
        """Send it whole, or an error."""
        scope, receive = self._http.scope, self._http.receive
        pieces = self._pieces()
        try:
            first = await anext(pieces, b"")
        except EngineError as error:
            # A client that asked for frames reads errors from them as well.
            refusal = _refusal(error, self._headers, framed=self._framed)
            return await refusal(scope, receive, send)
        body = await self._encoded(first)
        if self._complete:
            await pieces.aclose()
            whole = Response(body + self._rest(), 200)
            self._put_headers(whole)
            return await whole(scope, receive, send)
        start = Response()
        del start.headers["content-length"]
        self._put_headers(start)
        await send({"type": "http.response.start", "status": 200, "headers": start.raw_headers})
        try:
            await _send_body(send, body)
            async for piece in pieces:
                await _send_body(send, await self._encoded(piece))
        except EngineError as error:
            late = await self._encoded(_told_late(error, self._tag))
            # Without an end: the server breaks the connection off.
            return await _send_body(send, late + self._rest())
        await send({"type": "http.response.body", "body": self._rest()})
        return None

    @property
    def _waits(self) -> bool:
        return is_true(self._parameters, "wait_end_of_query")

    async def _pieces(self) -> AsyncGenerator[bytes]:
        """Give the answer piece by piece; the first is what is kept back."""
        kept_back = self._number("http_response_buffer_size", _KEPT_BACK_BYTES)
        kept_back = self._number("buffer_size", kept_back)
        if self._waits:
            with tempfile.SpooledTemporaryFile(kept_back, dir=str(self._query.folder)) as file:
                piece = await self._observed(self._in_thread(self._gather, file))
                while piece:
                    yield piece
                    piece = await self._in_thread(file.read, _PIECE_BYTES)
            return
        piece = await self._observed(self._in_thread(self._query.read, max(kept_back, 1)))
        self._complete = self._query.ended
        while piece:
            yield piece
            piece = await self._in_thread(self._query.read, _PIECE_BYTES)

    def _gather(self, file: IO[bytes]) -> bytes:
        """Read the answer to its end, and give its first piece; the file has what follows."""
        first = self._query.read(_PIECE_BYTES)
        self._complete = self._query.ended
        while piece := self._query.read(_PIECE_BYTES):
            file.write(piece)
        file.seek(0)
        return first

    async def _observed(self, work: Awaitable[Any]) -> Any:
        """Wait for the engine, and note its progress meanwhile if the client wants to know.

        ClickHouse sends these headers one by one while it works; here they come together.
        """
        if not is_true(self._parameters, "send_progress_in_http_headers"):
            return await work
        interval = self._number("http_headers_progress_interval_ms", 100) / 1000
        task = asyncio.ensure_future(work)
        while True:
            done, _ = await asyncio.wait({task}, timeout=max(interval, 0.01))
            self._progress.append(_compact(self._query.summary()))
            if done:
                return task.result()

    def _number(self, name: str, default: int) -> int:
        text = self._parameters.get(name, "")
        return int(text) if text.isdecimal() else default

    async def _encoded(self, piece: bytes) -> bytes:
        return await self._in_thread(self._encode, piece) if self._encoders else piece

    def _encode(self, piece: bytes) -> bytes:
        for encoder in self._encoders:
            piece = encoder.compress(piece)
        return piece

    def _rest(self) -> bytes:
        """What the encoders still hold."""
        return self._encoders[-1].flush() if self._encoders else b""

    def _put_headers(self, response: Response) -> None:
        headers = response.headers
        headers["Content-Type"] = _CONTENT_TYPES.get(self._query.format, _TEXT)
        headers.update(self._headers)
        if self._query.format:
            headers["X-ClickHouse-Format"] = _header(self._query.format)
        headers["X-ClickHouse-Exception-Tag"] = self._tag
        for progress in self._progress:
            headers.append("X-ClickHouse-Progress", progress)
        headers["X-ClickHouse-Summary"] = _compact(self._query.summary())
        if self._encoding:
            headers["Content-Encoding"] = self._encoding


async def _send_body(send: Any, body: bytes) -> None:
    """Send a part of a body, no faster than the client takes it."""
    for start in range(0, len(body), _PIECE_BYTES):
        piece = body[start : start + _PIECE_BYTES]
        await send({"type": "http.response.body", "body": piece, "more_body": True})


def _refusal(error: EngineError, headers: dict[str, str], *, framed: bool = False) -> Response:
    body = f"{error}\n".encode()
    return Response(
        codec.FrameEncoder().compress(body) if framed else body,
        status_code=error.status,
        headers={**headers, "X-ClickHouse-Exception-Code": str(error.code)},
        media_type="text/plain; charset=UTF-8",
    )


def _told_late(error: EngineError, tag: str) -> bytes:
    """Write an error behind the part of an answer that was sent, as ClickHouse does since 25.11."""
    text = f"{error}\n"
    size = len(text.encode())
    return f"\r\n__exception__\r\n{tag}\r\n{text}{size} {tag}\r\n__exception__\r\n".encode()


def _header(text: str) -> str:
    """What a client chose, as a header can hold it."""
    return re.sub(r"[^ -~]", "?", text).strip()


def _compact(summary: dict[str, str]) -> str:
    return json.dumps(summary, separators=(",", ":"))
