"""Spans on real servers: whose child is whose, what is linked, and none where nobody asks."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="mqinfer[otel] is not installed")

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mqinfer.adapters import otel
from mqinfer.identity import TRACE, TRACE_STATE
from mqinfer.running import Worker
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from tests.support.gateway import serving
from tests.support.kills import ROOT, environ
from tests.support.traced_app import Leaf, One, Photo, Report, app, small
from tests.support.triton import with_affine as settings

__all__ = ["settings"]

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = PARENT[:-2] + "00"


class Spans:
    """What was recorded, once it has ended."""

    def __init__(self, exporter: InMemorySpanExporter):
        self._exporter = exporter

    def all(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span


def parent(span: ReadableSpan) -> str | None:
    return None if span.parent is None else f"{span.parent.span_id:016x}"


def identity(span: ReadableSpan) -> str:
    return f"{span.context.span_id:016x}"


def traced(span: ReadableSpan) -> str:
    return f"{span.context.trace_id:032x}"


def is_sampled(header: str) -> bool:
    return bool(int(header[-2:], 16) & 1)


def linked(span: ReadableSpan) -> set[str]:
    return {f"{link.context.span_id:016x}" for link in span.links}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    """A program that has a provider of its own, which samples as mqinfer's does."""
    exporter = InMemorySpanExporter()
    provider = otel.provider("tests")
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield Spans(exporter)
    provider.shutdown()


async def test_from_a_request_to_its_rows(settings: Settings, spans: Spans) -> None:
    worker = Worker(app, settings=settings)
    async with serving(settings, app) as served, asyncio.TaskGroup() as group:
        group.create_task(worker.run())
        try:
            served.http.headers[TRACE] = PARENT
            asked = await served.ask(name="a", leaves=3, wait=30)
            assert asked.status_code == 200, asked.text
            await until(lambda: spans.named("stage report"), "the join")
            await until(lambda: len(spans.named("insert traced_grade")) == 3, "the rows")
            await until(lambda: len(spans.named("stage shape")) == 3, "the batches")
        finally:
            worker.stop()

    request = spans.one("POST /v1/endpoints/{name}/requests")
    assert parent(request) == PARENT[36:52]
    assert request.attributes["http.response.status_code"] == 200
    cut = spans.one("stage cut")
    assert parent(cut) == identity(request)
    grades = spans.named("stage grade")
    assert {parent(span) for span in grades} == {identity(cut)}
    assert {traced(span) for span in (request, cut, *grades)} == {PARENT[3:35]}

    # Each attempt is a span, and what came of one is the child of the one that succeeded.
    assert len(grades) == 4
    (failed,) = [span for span in grades if not span.status.is_ok and span.status.description]
    assert failed.status.description == "ValueError: the first attempt"
    assert failed.attributes["mqinfer.attempt"] == 1
    good = {identity(span) for span in grades if span is not failed}
    assert [s.attributes["mqinfer.attempt"] for s in grades if s is not failed].count(2) == 1

    # Model calls are children of the handlings; the requests that several went in are linked.
    calls = spans.named("model affine")
    assert {parent(span) for span in calls} == good
    gathered = spans.named("request affine")
    assert {one for span in gathered for one in linked(span)} == set(map(identity, calls))
    assert all(span.parent is None and traced(span) != PARENT[3:35] for span in gathered)
    assert {one for span in calls for one in linked(span)} == set(map(identity, gathered))

    # Rows: one in the trace of whoever wrote them, and one of the block.
    rows = spans.named("insert traced_grade")
    assert {parent(span) for span in rows} == good
    blocks = spans.named("insert traced_grade (block)")
    assert {one for span in blocks for one in linked(span)} == set(map(identity, rows))

    # A batch: one in the trace of each message, and one of the call.
    members = spans.named("stage shape")
    assert {parent(span) for span in members} == {identity(cut)}
    batches = spans.named("batch shape")
    assert {one for span in batches for one in linked(span)} == set(map(identity, members))
    assert sum(span.attributes["messaging.batch.message_count"] for span in batches) == 3

    # A join: in its root's trace, linked with what it was given.
    report = spans.one("stage report")
    assert traced(report) == PARENT[3:35]
    assert linked(report) == good


@pytest.mark.parametrize("sampled", [True, False])
async def test_a_trace_begins_where_there_is_none(
    settings: Settings, spans: Spans, sampled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not sampled:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
        unsampled = otel.provider("tests")
        monkeypatch.setattr(trace, "get_tracer_provider", lambda: unsampled)
    async with Harness(app, settings) as harness:
        await harness.publish(Photo("a", 2))
        await harness.drain()
        assert len(await harness.messages(Report)) == 1
        leaves = await harness.stored(subject=app.subject(Leaf))
    told = {message.headers[TRACE] for message in leaves}
    if sampled:
        cut = spans.one("stage cut")
        assert cut.parent is None
        assert {one[:-2] for one in told} == {f"00-{traced(cut)}-{identity(cut)}-"}
        assert all(map(is_sampled, told))
    else:
        # Said once for all that comes of it, or each stage would begin another trace.
        assert len(told) == 1
        assert not is_sampled(told.pop())
        assert spans.all() == []


async def test_what_is_not_sampled_is_handed_on(settings: Settings, spans: Spans) -> None:
    trace_state = {TRACE: UNSAMPLED, TRACE_STATE: "a=1"}
    async with Harness(app, settings) as harness:
        await harness.publish_bytes(app.subject(Photo), b'{"name":"a","leaves":2}', trace_state)
        await harness.drain()
        assert len(await harness.messages(Report)) == 1
        stored = await harness.stored(subject=app.subject(Leaf))
        stored += await harness.stored(subject=app.subject(Report))
        assert len(stored) == 3
        for message in stored:
            assert message.headers[TRACE][3:35] == UNSAMPLED[3:35]
            assert not is_sampled(message.headers[TRACE])
            assert message.headers[TRACE_STATE] == "a=1"
    assert spans.all() == []


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {otel.EXPORTERS: "none", otel.ENDPOINTS[0]: "http://127.0.0.1:4318"},
        {otel.EXPORTERS: "console", "OTEL_SDK_DISABLED": "true"},
        {otel.EXPORTERS: "nobody-has-it"},
    ],
)
def test_nothing_is_at_work_where_nobody_asks(environ: dict[str, str]) -> None:
    assert otel.open_tracing("tests", environ) is None


class Collector:
    """Takes OTLP by HTTP, as a collector does."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        spans = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service

                body = self.rfile.read(int(self.headers["content-length"]))
                for resource in service.ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in resource.scope_spans:
                        spans.extend(scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]

    def __enter__(self) -> Collector:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


async def test_a_worker_that_is_killed(nats: Settings, tmp_path: Path) -> None:
    """Its spans so far were sent, by what the environment says; the message has one in the end."""
    dies = tmp_path / "now"

    async def worker(*more: str, **environment: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mqinfer", "worker", "tests.support.traced_app:small", *more),
            cwd=ROOT,
            env={
                **environ(nats),
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
                "OTEL_BSP_SCHEDULE_DELAY": "50",
                "NO_PROXY": "*",
                **environment,
            },
        )

    with Collector() as collector:
        async with Harness(small, nats) as harness:
            await harness.publish_bytes(small.subject(One), b'{"n":1}', {TRACE: PARENT})
            killed = await worker(TRACED_DIES=str(dies))
            await until(lambda: collector.named("stage first"), "the first span")
            dies.touch()
            assert await killed.wait() == -9
            again = await worker("--drain")
            assert await again.wait() == 0
    (first,), (second,) = collector.named("stage first"), collector.named("stage second")
    assert first.parent_span_id.hex() == PARENT[36:52]
    assert second.parent_span_id == first.span_id
    assert {span.trace_id.hex() for span in (first, second)} == {PARENT[3:35]}
    assert "mqinfer.attempt" in {one.key for one in second.attributes}
