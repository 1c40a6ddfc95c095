"""Tracing: a request by HTTP as a span, and its trace for the message that comes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mqinfer.tracing.spans import handed_on

if TYPE_CHECKING:
    from starlette.requests import Request

    from mqinfer.tracing.spans import Span, Tracing

STATUS: Final = "http.response.status_code"
_SPAN: Final = "mqinfer.span"  # in a request's scope


def begun(tracing: Tracing, path: str, request: Request) -> Span:
    """The span of a request, the client's trace going on if it has one."""
    told = {
        "http.request.method": request.method,
        "http.route": path,
        "url.path": request.url.path,
    }
    name = f"{request.method} {path}"
    span = tracing.span(name, "server", handed_on(request.headers), told)
    request.scope[_SPAN] = span
    return span


def trace_of(request: Request) -> dict[str, str]:
    """Headers of the message that comes of a request: its span's, or those of the client."""
    span: Span | None = request.scope.get(_SPAN)
    return handed_on(request.headers if span is None else span.headers)
