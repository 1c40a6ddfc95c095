"""Spans: what is needed of a tracer. W3C's headers are its only currency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Literal, Protocol, Self

from mqinfer.identity import MAX_ID, MAX_TRACE_STATE, TRACE, TRACE_STATE

Headers = Mapping[str, str]
Attributes = Mapping[str, str | int | bool]
# Who waits: `server` answers a client, `consumer` works on a message, `client` asks a server.
Kind = Literal["server", "consumer", "client"]


class Span(Protocol):
    """Something that takes time.

    As a context manager it is what goes on in between: spans without a parent are its children. It
    ends there, with the exception if there is one.
    """

    @property
    def recorded(self) -> bool:
        """Whether anybody will see it: it was sampled."""

    @property
    def headers(self) -> Headers:
        """`traceparent`, and `tracestate` if there is one, for whatever comes of it."""

    def tell(self, attributes: Attributes) -> None:
        """Attributes that were not known when it began."""

    def end(self, error: BaseException | None = None) -> None:
        """It is over, of one that is no context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Tracing(Protocol):
    """Begins spans."""

    def span(
        self,
        name: str,
        kind: Kind,
        parent: Headers | None,
        attributes: Attributes,
        links: Sequence[str] = (),
    ) -> Span:
        """Begin a span.

        Args:
            name: with few values, as of a stage.
            kind: of it.
            parent: headers with the trace that it belongs to; without one it begins a trace. None
                is whatever goes on.
            attributes: of it.
            links: further spans, each as its `traceparent`.
        """

    def together(self, name: str, kind: Kind, of: Sequence[Span], attributes: Attributes) -> Span:
        """Begin a span of what is done for several at once: a trace of its own.

        It is linked with each, both ways, and sampled if one of them is.

        Args:
            name: as of `span`, and so are these:
            kind: of it.
            of: the spans, at least one, which have not ended.
            attributes: of it.
        """

    def current(self) -> Span | None:
        """A view of the recorded span that goes on; not to be ended."""

    async def flush(self) -> None:
        """Send what was recorded, for some seconds at most."""


def handed_on(headers: Headers) -> dict[str, str]:
    """The trace that foreign headers name, if they can be handed on.

    Args:
        headers: any; their names in lower case.
    """
    parent, state = headers.get(TRACE), headers.get(TRACE_STATE)
    if not parent or len(parent) > MAX_ID or not parent.isprintable():
        return {}
    if not state or len(state) > MAX_TRACE_STATE or not state.isprintable():
        return {TRACE: parent}
    return {TRACE: parent, TRACE_STATE: state}


def replaced(headers: Headers, trace: Headers) -> Headers:
    """Headers with another trace, or as they are where that is none."""
    if not trace:
        return headers
    rest = {name: text for name, text in headers.items() if name not in (TRACE, TRACE_STATE)}
    return {**rest, **trace}
