"""Answers: what is sent to a client, whatever it is told."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from mqinfer.gateway import preferences
from mqinfer.gateway.problems import MEDIA_TYPE, Problem

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

JSON = "application/json"
_LINGER = 1.0  # seconds in which a client may send on after it was refused
_LINGER_BYTES = 1024 * 1024


class Refused(Response):
    """A problem. A client that is still sending gets to read it.

    Were the connection closed with bytes of the body unread, the client's system would be told of a
    reset, and might throw away the answer. So what comes in the next moment is read, and dropped.
    """

    def __init__(self, problem: Problem):
        super().__init__(
            problem.body(), problem.status, headers=problem.headers, media_type=MEDIA_TYPE
        )
        self._linger = "connection" in problem.headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; an ASGI application."""
        expects = any(name == b"expect" for name, _ in scope["headers"])  # it sends nothing more
        if not self._linger or expects:
            await super().__call__(scope, receive, send)
            return
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        left = _LINGER_BYTES
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                while left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    if not message.get("more_body", False):
                        break
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def json(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A body of JSON, which nobody else keeps a copy of."""
    return Response(
        body, status, headers={"cache-control": "no-store", **(headers or {})}, media_type=JSON
    )


def state(
    request: Request, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A body of JSON with its tag; 304 where the client has it."""
    etag = preferences.tag(body)
    told = {**(headers or {}), "etag": etag, "cache-control": "no-cache"}
    if request.method in ("GET", "HEAD") and preferences.known(
        request.headers.get("if-none-match"), etag
    ):
        return Response(status_code=304, headers=told)
    return Response(body, status, headers=told, media_type=JSON)


def asked_to_wait(request: Request, most: float) -> float:
    """The seconds that a client would wait."""
    return preferences.wait(request.headers.getlist("prefer"), most)


def waited(seconds: float) -> dict[str, Any]:
    """The header that says for how long was waited (RFC 7240, 3)."""
    return {"preference-applied": f"wait={seconds:g}"} if seconds else {}


def behind(request: Request, event: re.Pattern[str]) -> re.Match[str]:
    """The event behind which a client would go on; "0" where it knows of none.

    Args:
        request: of the client.
        event: what the ids of events look like.

    Raises:
        Problem: it names none that this server gave.
    """
    given = request.headers.get("last-event-id") or request.query_params.get("after") or "0"
    last = event.fullmatch(given)
    if last is None:
        raise Problem(400, "malformed", "Last-Event-ID is none that this server gave")
    return last
