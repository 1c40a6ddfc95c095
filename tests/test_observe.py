import io
import json
import logging
import sys
import time
from types import SimpleNamespace
from typing import get_args

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from mqinfer import App
from mqinfer.counts import HANDLE_BUCKETS
from mqinfer.flow.deadletter import Kind
from mqinfer.metrics import DEATHS
from mqinfer.observe import Histogram, Metrics, configure_logging, redact
from mqinfer.testing import Harness
from tests.support.replay import Double, Number


def samples(metrics):
    """Every sample of the text format, as Prometheus would read it."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def sample(metrics, name, **labels):
    return samples(metrics).get((name, tuple(sorted({"app": "plants", **labels}.items()))))


# --- metrics --------------------------------------------------------------------------------------


def test_messages_are_counted_by_how_they_ended():
    metrics = Metrics("plants")
    stage = metrics.stage("crop")
    assert metrics.stage("crop") is stage
    for _ in range(3):
        stage.done(0.003)
    stage.retried()
    stage.retried(snoozed=True)
    stage.skipped()
    stage.dead("decode")
    stage.dead("rejected")
    stage.dead("failed")
    stage.dead("timeout")
    ended = {"done": 3, "retried": 1, "snoozed": 1, "skipped": 1, "rejected": 2, "dead": 2}
    for outcome, count in ended.items():
        found = sample(metrics, "mqinfer_messages_total", stage="crop", outcome=outcome)
        assert found == count, outcome
    assert sample(metrics, "mqinfer_dead_letters_total", stage="crop", kind="timeout") == 1
    assert "done" in repr(stage)


def test_what_happens_seldom_has_a_series_before_it_happens():
    """Else Prometheus would see no increase in the first of them."""
    metrics = Metrics("plants")
    metrics.stage("crop")
    assert get_args(Kind) == DEATHS
    for kind in DEATHS:
        assert sample(metrics, "mqinfer_dead_letters_total", stage="crop", kind=kind) == 0
    assert sample(metrics, "mqinfer_loop_blocked_seconds_sum", stage="crop") == 0
    metrics.loop_blocked("crop", 2.0)
    metrics.loop_blocked("", 3.0)
    assert sample(metrics, "mqinfer_loop_blocked_seconds_sum", stage="crop") == 2
    assert sample(metrics, "mqinfer_loop_blocked_seconds_sum", stage="") == 3


def test_what_a_replay_does_is_told_from_live_work():
    metrics = Metrics("plants")
    metrics.stage("crop").done(0.1)
    assert b"run=" not in metrics.render()
    metrics.run = "may"
    done = {"stage": "crop", "outcome": "done", "run": "may"}
    assert sample(metrics, "mqinfer_messages_total", **done) == 1
    assert sample(metrics, "mqinfer_handle_seconds_count", stage="crop", run="may") == 1


def test_outputs_redeliveries_and_duplicates():
    metrics = Metrics("plants")
    stage = metrics.stage("crop")
    stage.outputs(5)
    stage.outputs()
    stage.redelivered()
    stage.duplicates(2)
    assert sample(metrics, "mqinfer_outputs_total", stage="crop") == 6
    assert sample(metrics, "mqinfer_redelivered_total", stage="crop") == 1
    assert sample(metrics, "mqinfer_duplicates_total", stage="crop") == 2


def test_gauges_are_read_when_asked_and_left_out_when_unknown():
    metrics = Metrics("plants")
    stage = metrics.stage("crop")
    assert sample(metrics, "mqinfer_in_flight", stage="crop") is None
    slots = SimpleNamespace(in_flight=0, bytes_in_flight=0)
    now = {"lag": None, "blocked": None}
    stage.watch(slots, lambda: now["lag"], lambda: now["blocked"])
    assert sample(metrics, "mqinfer_lag", stage="crop") is None
    assert sample(metrics, "mqinfer_blocked", stage="crop") == 0
    slots.in_flight, slots.bytes_in_flight = 3, 1000
    now.update(lag=7, blocked="triton is down")
    assert sample(metrics, "mqinfer_in_flight", stage="crop") == 3
    assert sample(metrics, "mqinfer_in_flight_bytes", stage="crop") == 1000
    assert sample(metrics, "mqinfer_lag", stage="crop") == 7
    assert sample(metrics, "mqinfer_blocked", stage="crop") == 1


def test_times_go_into_buckets():
    metrics = Metrics("plants")
    stage = metrics.stage("crop")
    stage.done(0.003, time.time_ns() - 2_000_000_000)
    stage.done(1000.0, time.time_ns() + 3_600_000_000_000)  # the server's clock is ahead
    stage.done(0.0, 0)  # not known
    name = "mqinfer_handle_seconds"
    assert sample(metrics, f"{name}_count", stage="crop") == 3
    assert sample(metrics, f"{name}_sum", stage="crop") == pytest.approx(1000.003)
    assert sample(metrics, f"{name}_bucket", stage="crop", le="0.0025") == 1
    assert sample(metrics, f"{name}_bucket", stage="crop", le="0.005") == 2
    assert sample(metrics, f"{name}_bucket", stage="crop", le="60.0") == 2
    assert sample(metrics, f"{name}_bucket", stage="crop", le="+Inf") == 3
    name = "mqinfer_end_to_end_seconds"
    assert sample(metrics, f"{name}_count", stage="crop") == 2
    assert 2 <= sample(metrics, f"{name}_sum", stage="crop") < 60


@given(st.lists(st.floats(0, 1e6), max_size=50))
def test_a_histogram_counts_as_prometheus_defines_it(values):
    histogram = Histogram(HANDLE_BUCKETS)
    for value in values:
        histogram.observe(value)
    for bound, count in histogram.buckets():
        assert count == sum(value <= float(bound) for value in values)
    assert histogram.total == pytest.approx(sum(values))


def test_models_and_sinks():
    metrics = Metrics("plants")
    metrics.request("leaf", "2", 32, 0.02)
    metrics.request("leaf", "2", 8, 0.01)
    metrics.failed("leaf", "1")
    metrics.sink("grade").inserted(1000, 0.3)
    metrics.sink("grade").refused()
    assert sample(metrics, "mqinfer_model_requests_total", model="leaf", version="2") == 2
    assert sample(metrics, "mqinfer_model_items_total", model="leaf", version="2") == 40
    assert sample(metrics, "mqinfer_model_failures_total", model="leaf", version="1") == 1
    seconds = "mqinfer_model_request_seconds_sum"
    assert sample(metrics, seconds, model="leaf", version="2") == pytest.approx(0.03)
    assert sample(metrics, "mqinfer_sink_rows_total", table="grade") == 1000
    assert sample(metrics, "mqinfer_sink_blocks_total", table="grade") == 1
    assert sample(metrics, "mqinfer_sink_refused_rows_total", table="grade") == 1
    assert sample(metrics, "mqinfer_sink_insert_seconds_count", table="grade") == 1


def test_two_apps_in_a_process_do_not_mix_and_the_process_is_there():
    one, two = Metrics("one"), Metrics("two")
    one.stage("a").done(0.1)
    assert b'app="one"' in one.render()
    assert b'app="one"' not in two.render()
    assert b"process_resident_memory_bytes" in one.render()


def test_counting_a_message_is_cheap():
    """About 0.4 us on an idle machine; a test can count calls, whatever else the machine does."""
    stage = Metrics("plants").stage("crop")
    published = time.time_ns()
    calls = 0

    def count(_frame, event, _argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        for _ in range(1000):
            stage.done(0.003, published)
    finally:
        sys.setprofile(None)
    assert calls <= 5 * 1000


# --- traces ---------------------------------------------------------------------------------------

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("came", "goes"),
    [
        ({}, {}),
        ({"traceparent": PARENT}, {"traceparent": PARENT}),
        ({"traceparent": PARENT, "tracestate": "a=1,b=2"}, None),
        ({"traceparent": PARENT, "tracestate": "a" * 513}, {"traceparent": PARENT}),
        ({"traceparent": "x" * 129, "tracestate": "a=1"}, {}),
        ({"tracestate": "a=1"}, {}),
    ],
)
async def test_a_trace_goes_on_as_it_came(nats, came, goes):
    app = App("traces")

    @app.stage
    async def double(number: Number) -> Double:
        return Double(2 * number.value)

    async with Harness(app, nats) as harness:
        await harness.publish_bytes("traces.number", b'{"value":1}', came)
        await harness.drain()
        (stored,) = await harness.stored(subject="traces.double")
        found = {name: value for name, value in stored.headers.items() if name[:5] == "trace"}
        assert found == (came if goes is None else goes)


# --- logs -----------------------------------------------------------------------------------------


@pytest.fixture
def logs():
    """Configure logging to a buffer, and put everything back."""
    root, own = logging.getLogger(), logging.getLogger("mqinfer")
    before = root.handlers[:], root.level, own.level, structlog.get_config()
    stream = io.StringIO()

    def configure(level="info", format="json"):  # noqa: A002
        configure_logging(level, format, stream=stream)
        return stream

    yield configure
    root.handlers[:], root.level, own.level = before[:3]
    root.setLevel(before[1])
    own.setLevel(before[2])
    structlog.configure(**before[3])


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines(logs):
    stream = logs()
    structlog.get_logger("mqinfer.stage").info("retry", stage="crop", attempt=2, odd=set)
    structlog.get_logger("mqinfer.stage").debug("not shown")
    (line,) = lines(stream)
    assert line["event"] == "retry"
    assert line["level"] == "info"
    assert line["logger"] == "mqinfer.stage"
    assert line["stage"] == "crop"
    assert line["timestamp"].endswith("Z")


def test_libraries_are_logged_in_the_same_form_from_warnings_on(logs):
    stream = logs()
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").warning("watch %s", "out", extra={"size": 3})
    logging.getLogger("mqinfer.settings").info("shown")
    first, second = lines(stream)
    assert (first["event"], first["logger"], first["size"]) == ("watch out", "some.library", 3)
    assert second["event"] == "shown"


def test_debug_brings_libraries_from_info_on(logs):
    stream = logs("debug")
    logging.getLogger("some.library").debug("chatter")
    logging.getLogger("some.library").info("news")
    structlog.get_logger("mqinfer.stage").debug("detail")
    assert [line["event"] for line in lines(stream)] == ["news", "detail"]


@pytest.mark.parametrize("form", ["json", "console", "auto"])
def test_an_exception_is_in_the_log_without_its_secrets(logs, form):
    stream = logs(format=form)
    try:
        raise OSError("cannot reach nats://bob:hunter2@host:4222")
    except OSError:
        structlog.get_logger("mqinfer.x").exception("failed", url="http://u:hunter2@h/x")
    text = stream.getvalue()
    assert "hunter2" not in text
    assert "cannot reach nats://bob:***@host:4222" in text
    assert "Traceback" in text


def test_a_second_configuration_replaces_the_first(logs):
    logs()
    stream = logs()
    logging.getLogger("mqinfer").warning("once")
    assert len(lines(stream)) == 1


def test_whatever_is_logged_is_a_line(logs):
    stream = logs()
    circle = []
    circle.append(circle)
    log = structlog.get_logger("mqinfer.x")
    log.info("a\nb", value=object(), data=b"\xff", nan=float("nan"), bad="\ud800")
    log.info("circle", circle=circle, keys={("a", 1): 2})
    assert [line["event"].strip("'") for line in lines(stream)] == ["a\nb", "circle"]


@pytest.mark.parametrize(
    "event",
    [
        {"password": "hunter2"},
        {"nats_password": "hunter2"},
        {"NATS-Token": "hunter2"},
        {"authorization": b"hunter2"},
        {"options": {"user": "u", "secret": "hunter2"}},
        {"servers": ["nats://u:hunter2@a", "nats://hunter2@b"]},
        {"event": "no http://u:hunter2@h"},
        {"jwt": "eyJ0eXAiOiJKV1QiLCJhbGci.hunter2.sig"},
    ],
)
def test_secrets_are_redacted(event):
    shown = repr(redact(None, "info", event))
    assert "hunter2" not in shown


def test_an_nkey_seed_is_redacted_anywhere():
    seed = "SU" + "A" * 56
    assert seed not in repr(redact(None, "info", {"event": f"using {seed} now"}))


def test_what_is_no_secret_stays():
    event = {"event": "token bucket", "seed": 7, "key": "position_id", "tokens": ["a"], "n": 1.5}
    assert redact(None, "info", dict(event)) == event
