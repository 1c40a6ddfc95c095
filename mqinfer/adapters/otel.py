"""OpenTelemetry: the tracer, set by the usual OTEL_* variables; the extra `otel`.

Off, and not even imported, unless an exporter or its endpoint is named there, or the program that
mqinfer is part of has set a tracer provider of its own.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, cast

import structlog

from mqinfer.identity import TRACE
from mqinfer.tracing.spans import Attributes, Headers, Kind, Span

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult

log = structlog.get_logger("mqinfer.tracing")

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
EXPORTERS: Final = "OTEL_TRACES_EXPORTER"
FLUSH: Final = 5_000  # milliseconds for what was recorded last

_made: TracerProvider | None = None  # one a process, whatever runs in it


def open_tracing(service: str, environ: Mapping[str, str] | None = None) -> Otel | None:
    """The tracer that the environment asks for; None where it asks for none.

    Args:
        service: a name for it, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES has one.
        environ: None is that of the process. What the SDK reads itself is of the process always.
    """
    environ = os.environ if environ is None else environ
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    found = _of_the_program()
    if found is None and _asked(environ):
        found = _made or _make(service, environ)
    return None if found is None else Otel(found)


def _asked(environ: Mapping[str, str]) -> bool:
    exporters = environ.get(EXPORTERS, "").strip()
    return exporters != "none" and bool(exporters or any(map(environ.get, ENDPOINTS)))


def _of_the_program() -> Any:
    """The provider that somebody else has set, if one has."""
    if "opentelemetry.trace" not in sys.modules:
        return None
    from opentelemetry import trace

    found = trace.get_tracer_provider()
    none = (trace.ProxyTracerProvider, trace.NoOpTracerProvider)
    return None if isinstance(found, none) else found


def _make(service: str, environ: Mapping[str, str]) -> TracerProvider | None:
    """The provider of this process, with the exporters that are named."""
    global _made
    try:
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        # The variables may be there for others: work goes on, and it is said.
        log.warning("no traces: OTEL_* asks for them, and mqinfer[otel] is not installed")
        return None
    exporters = [made for name in _names(environ) if (made := _exporter(name)) is not None]
    if not exporters:
        return None
    _made = provider(service)
    for exporter in exporters:
        _made.add_span_processor(BatchSpanProcessor(exporter))
    log.info("traces are sent", exporters=_names(environ))
    return _made


def _names(environ: Mapping[str, str]) -> list[str]:
    named = environ.get(EXPORTERS, "").strip() or "otlp"
    protocol = environ.get(
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
    )
    otlp = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    names = [name.strip() for name in named.split(",")]
    return [otlp if name == "otlp" else name for name in names if name != "none"]


def _exporter(name: str) -> Any:
    for entry in entry_points(group="opentelemetry_traces_exporter", name=name):
        return entry.load()()
    log.warning("no traces by this exporter: no package that is installed has it", exporter=name)
    return None


def provider(service: str) -> TracerProvider:
    """A provider without exporters, which samples as the environment says.

    Args:
        service: its name, where the environment gives none.
    """
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider

    resource = Resource.create()
    named = os.environ.get("OTEL_SERVICE_NAME") or SERVICE_NAME in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    if not named:
        resource = resource.merge(Resource({SERVICE_NAME: service}))
    made = TracerProvider(resource=resource)
    made.sampler = cast("Any", WithLinks(made.sampler))
    return made


class WithLinks:
    """A sampler: of what stands for several if one of them is sampled; of all else as another says.

    Args:
        other: the other.
    """

    def __init__(self, other: Sampler):
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON
        from opentelemetry.trace import get_current_span

        self._other = other
        self._always = ALWAYS_ON
        self._span_of = get_current_span

    def should_sample(
        self,
        parent_context: Any,
        trace_id: int,
        name: str,
        kind: Any = None,
        attributes: Any = None,
        links: Any = None,
        trace_state: Any = None,
    ) -> SamplingResult:
        """What is done with a span that begins."""
        alone = not self._span_of(parent_context).get_span_context().is_valid
        linked = alone and any(link.context.trace_flags.sampled for link in links or ())
        sampler = self._always if linked else self._other
        return sampler.should_sample(
            parent_context, trace_id, name, kind, attributes, links, trace_state
        )

    def get_description(self) -> str:
        """For whoever looks at the provider."""
        return f"WithLinks({self._other.get_description()})"


class Otel:
    """A tracer of OpenTelemetry.

    Args:
        provider: of the SDK, or another.
    """

    def __init__(self, provider: Any):
        from opentelemetry import context, trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer: trace.Tracer = provider.get_tracer("mqinfer")
        self._trace = trace
        self._context = context
        self._propagator = TraceContextTextMapPropagator()
        self._nothing = context.Context()
        self._kinds = {
            "server": trace.SpanKind.SERVER,
            "consumer": trace.SpanKind.CONSUMER,
            "client": trace.SpanKind.CLIENT,
        }

    def span(
        self,
        name: str,
        kind: Kind,
        parent: Headers | None,
        attributes: Attributes,
        links: Sequence[str] = (),
    ) -> Span:
        """Begin a span; see `mqinfer.tracing.spans`."""
        context = None
        if parent is not None:
            context = self._nothing
            if TRACE in parent:
                context = self._propagator.extract(parent, context)
        found = [self._link(one) for one in links] or None
        return self._started(name, kind, context, attributes, found)

    def _link(self, parent: str) -> trace.Link:
        context = self._propagator.extract({TRACE: parent}, self._nothing)
        return self._trace.Link(self._trace.get_current_span(context).get_span_context())

    def together(self, name: str, kind: Kind, of: Sequence[Span], attributes: Attributes) -> Span:
        """Begin a span of what is done for several at once."""
        links = []
        for one in of:
            assert isinstance(one, OtelSpan)
            links.append(self._trace.Link(one.span.get_span_context()))
        made = self._started(name, kind, self._nothing, attributes, links)
        for one in of:
            assert isinstance(one, OtelSpan)
            one.span.add_link(made.span.get_span_context())
        return made

    def _started(
        self,
        name: str,
        kind: Kind,
        context: Any,
        attributes: Attributes,
        links: Sequence[trace.Link] | None = None,
    ) -> OtelSpan:
        span = self._tracer.start_span(name, context, self._kinds[kind], dict(attributes), links)
        return OtelSpan(self, span)

    def current(self) -> Span | None:
        """The recorded span that goes on."""
        span = self._trace.get_current_span()
        return OtelSpan(self, span) if span.is_recording() else None

    async def flush(self) -> None:
        """Send what was recorded."""
        flush = getattr(self._provider, "force_flush", None)
        if flush is not None:
            await asyncio.to_thread(flush, FLUSH)

    # --- for spans --------------------------------------------------------------------------------

    def headers_of(self, span: trace.Span) -> dict[str, str]:
        """The headers that name a span."""
        found: dict[str, str] = {}
        self._propagator.inject(found, self._trace.set_span_in_context(span, self._nothing))
        return found

    def enter(self, span: trace.Span) -> Any:
        """A span goes on from here; gives what ends that."""
        return self._context.attach(self._trace.set_span_in_context(span))

    def leave(self, token: Any) -> None:
        """It goes on no more."""
        self._context.detach(token)

    def failed(self, span: trace.Span, error: BaseException) -> None:
        """It ended with an error."""
        span.record_exception(error)
        text = f"{type(error).__name__}: {error}"
        span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, text))


class OtelSpan:
    """A span of OpenTelemetry.

    Attributes:
        span: itself.
    """

    __slots__ = ("_otel", "_token", "span")

    def __init__(self, otel: Otel, span: trace.Span):
        self._otel = otel
        self._token: Any = None
        self.span = span

    @property
    def recorded(self) -> bool:
        """Whether it was sampled."""
        return self.span.is_recording()

    @property
    def headers(self) -> Headers:
        """The headers that name it."""
        return self._otel.headers_of(self.span)

    def tell(self, attributes: Attributes) -> None:
        """Attributes that were not known when it began."""
        self.span.set_attributes(dict(attributes))

    def end(self, error: BaseException | None = None) -> None:
        """It is over."""
        if error is not None:
            self._otel.failed(self.span, error)
        self.span.end()

    def __enter__(self) -> Self:
        self._token = self._otel.enter(self.span)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._otel.leave(self._token)
        self.end(error)
