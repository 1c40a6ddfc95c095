"""Metrics: what is counted for each message, model request and insert, and how Prometheus reads it.

Counting a message costs a few additions to plain Python numbers; Prometheus's own objects are made
when it asks. Everything that counts belongs to one event loop; what reads it, in the thread that
serves HTTP, takes whole dictionaries at once and numbers that only grow, so nothing is locked.
(The client's own Counter and Histogram would do for models and sinks, but they add a `_created`
series to every metric, and that can only be turned off for the whole process, which may be a
user's.)
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from mqinfer.counts import (
    AGE_BUCKETS,
    BLOCK_BUCKETS,
    HANDLING_BUCKETS,
    BlobCacheMetrics,
    Histogram,
    ModelMetrics,
    SinkMetrics,
)

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

_COULD_NOT_BE_PROCESSED = ("decode", "rejected")  # kinds of dead letters that no retry would help
DEATHS = (*_COULD_NOT_BE_PROCESSED, "failed", "timeout", "killed")


class Occupancy(Protocol):
    """What a stage has in flight; `flow.slots.Slots` is one."""

    @property
    def in_flight(self) -> int:
        """Messages."""

    @property
    def bytes_in_flight(self) -> int:
        """Of their payloads and headers."""


class StageMetrics:
    """Counts of one stage in this process; every method is called on the event loop."""

    __slots__ = (
        "_blocked",
        "_lag",
        "_occupancy",
        "ages",
        "completed",
        "deaths",
        "dropped",
        "duplicate_publishes",
        "handling",
        "lapses",
        "outputs_published",
        "redeliveries",
        "retries",
        "skips",
        "snoozes",
    )

    def __init__(self) -> None:
        self.completed = 0
        self.retries = 0
        self.snoozes = 0
        self.skips = 0
        self.redeliveries = 0
        self.lapses = 0
        self.outputs_published = 0
        self.duplicate_publishes = 0
        # All from the start: Prometheus sees no increase in a series that begins with 1.
        self.deaths: dict[str, int] = dict.fromkeys(DEATHS, 0)
        self.dropped = 0  # of the deaths, those without a dead letter
        self.handling = Histogram(HANDLING_BUCKETS)
        self.ages = Histogram(AGE_BUCKETS, unit=1e9)
        self._occupancy: Occupancy | None = None
        self._lag: Callable[[], int | None] | None = None
        self._blocked: Callable[[], str | None] | None = None

    def done(
        self,
        seconds: float,
        published: int = 0,
        # Bound here: looking them up for each message would cost as much as the counting.
        _bisect: Any = bisect_left,
        _now: Callable[[], int] = time.time_ns,
    ) -> None:
        """A message was answered and acknowledged.

        Args:
            seconds: from the start of its handler.
            published: the stream's time of the message, nanoseconds since the epoch; 0 is unknown.
        """
        self.completed += 1
        handling = self.handling
        handling.counts[_bisect(handling.bounds, seconds)] += 1
        handling.total += seconds
        if published:
            age = _now() - published
            ages = self.ages
            ages.counts[_bisect(ages.bounds, age)] += 1
            if age > 0:  # the server's clock may be ahead; a sum must never fall
                ages.total += age

    def retried(self, *, snoozed: bool = False) -> None:
        """A message was given back for another attempt; snoozed: as its handler asked."""
        self.retries += not snoozed
        self.snoozes += snoozed

    def skipped(self) -> None:
        """A message was acknowledged without an answer, for it is meant for another consumer."""
        self.skips += 1

    def lapsed(self) -> None:
        """A message was let go before it was begun with: it may be another worker's by now."""
        self.lapses += 1

    def dead(self, kind: str) -> None:
        """A message ended as a dead letter of this kind."""
        self.deaths[kind] = self.deaths.get(kind, 0) + 1

    def redelivered(self) -> None:
        """A message came that had been delivered before."""
        self.redeliveries += 1

    def outputs(self, count: int = 1) -> None:
        """Messages were published and stored."""
        self.outputs_published += count

    def duplicates(self, count: int = 1) -> None:
        """Messages were published that the stream had already."""
        self.duplicate_publishes += count

    def watch(
        self,
        occupancy: Occupancy,
        lag: Callable[[], int | None] | None = None,
        blocked: Callable[[], str | None] | None = None,
    ) -> None:
        """Say where the gauges read from when Prometheus asks.

        Args:
            occupancy: messages and bytes in flight.
            lag: messages of the stage that are not done, wherever they are; None while not known.
            blocked: why the stage does not pull; None while it does.
        """
        self._occupancy, self._lag, self._blocked = occupancy, lag, blocked

    def outcomes(self) -> dict[str, int]:
        """How many messages ended in each way."""
        rejected = sum(self.deaths.get(kind, 0) for kind in _COULD_NOT_BE_PROCESSED)
        return {
            "done": self.completed,
            "retried": self.retries,
            "snoozed": self.snoozes,
            "dead": sum(self.deaths.values()) - rejected,
            "rejected": rejected,
            "skipped": self.skips,
        }

    def gauges(self) -> dict[str, float]:
        """What is so now; what is not known is left out."""
        found: dict[str, float] = {}
        if self._occupancy is not None:
            found["in_flight"] = self._occupancy.in_flight
            found["in_flight_bytes"] = self._occupancy.bytes_in_flight
        if self._lag is not None and (lag := self._lag()) is not None:
            found["lag"] = lag
        if self._blocked is not None:
            found["blocked"] = self._blocked() is not None
        return found

    def __repr__(self) -> str:
        return f"StageMetrics({self.outcomes()}, {self.gauges()})"


class Metrics:
    """All metrics of one app in this process, in a Prometheus registry of their own.

    Args:
        app: the app's name, a label of everything.

    Attributes:
        queueing: whether calls of a model have waited for seconds; None: nobody has looked.
        run: the replay run that is worked on, a label of everything then; "" is live work, whose
            series have no such label: `run=""` finds them.
    """

    def __init__(self, app: str):
        self.app = app
        self.queueing: bool | None = None
        self.run = ""
        self._stages: dict[str, StageMetrics] = {}
        self._models: dict[tuple[str, str], ModelMetrics] = defaultdict(ModelMetrics)
        self._sinks: dict[str, SinkMetrics] = {}
        self._blocks: dict[str, Histogram] = defaultdict(lambda: Histogram(BLOCK_BUCKETS))
        self._blob_cache: BlobCacheMetrics | None = None
        self._registry: CollectorRegistry | None = None

    def stage(self, name: str) -> StageMetrics:
        """The counts of a stage; always the same object for a name."""
        return self._stages.setdefault(name, StageMetrics())

    @property
    def models(self) -> Mapping[tuple[str, str], ModelMetrics]:
        """The counts by model and version."""
        return self._models

    def request(self, model: str, version: str, items: int, seconds: float) -> None:
        """The inference server answered a request; what `inference.inference` reports to."""
        counts = self._models[model, version]
        counts.requests += 1
        counts.items += items
        counts.seconds.observe(seconds)

    def failed(self, model: str, version: str) -> None:
        """The inference server refused a request, or did not answer it."""
        self._models[model, version].failures += 1

    def sink(self, table: str) -> SinkMetrics:
        """The counts of a table's sink; always the same object for a table."""
        return self._sinks.setdefault(table, SinkMetrics())

    @property
    def blob_cache(self) -> BlobCacheMetrics:
        """The counts of the blob cache; without one nobody asks, and nothing is shown."""
        self._blob_cache = self._blob_cache or BlobCacheMetrics()
        return self._blob_cache

    def loop_blocked(self, stage: str, seconds: float) -> None:
        """The event loop stood still; what `worker.watchdog` reports to, from its thread.

        Args:
            stage: whose handler blocked it; "" is none's.
            seconds: how long.
        """
        self._blocks[stage].observe(seconds)

    @property
    def registry(self) -> CollectorRegistry:
        """A registry with these metrics and the process's (memory, processor, files)."""
        if self._registry is None:
            from prometheus_client import CollectorRegistry, ProcessCollector

            self._registry = CollectorRegistry()
            self._registry.register(self)
            ProcessCollector(registry=self._registry)
        return self._registry

    def render(self) -> bytes:
        """Prometheus's text format."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """What Prometheus's registry calls when it is read."""
        for family in self._families():
            if self.run:
                own = {"run": self.run}
                family.samples = [
                    sample._replace(labels={**sample.labels, **own}) for sample in family.samples
                ]
            yield family

    def _families(self) -> Iterator[Metric]:
        yield from self._collect_stages()
        yield from self._collect_models()
        yield from self._collect_sinks()
        yield self._collect_blocks()
        if self._blob_cache is not None:
            yield from _counters(
                [([self.app], self._blob_cache)],
                ["app"],
                ("blob_cache_hits", "hits", "Blobs read from the cache on disk."),
                ("blob_cache_hit_bytes", "hit_bytes", "Their bytes."),
                ("blob_cache_misses", "misses", "Blobs read from the store and not the cache."),
                ("blob_cache_miss_bytes", "miss_bytes", "Their bytes."),
            )

    def _collect_stages(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily as Counter
        from prometheus_client.core import GaugeMetricFamily as Gauge
        from prometheus_client.core import HistogramMetricFamily

        stages, labels = sorted(self._stages.items()), ["app", "stage"]
        messages = Counter(
            "mqinfer_messages", "Messages by how they ended.", labels=[*labels, "outcome"]
        )
        deaths = Counter(
            "mqinfer_dead_letters", "Messages that ended as dead letters.", labels=[*labels, "kind"]
        )
        for name, stage in stages:
            for outcome, count in stage.outcomes().items():
                messages.add_metric([self.app, name, outcome], count)
            for kind, count in stage.deaths.items():
                deaths.add_metric([self.app, name, kind], count)
        yield messages
        yield deaths
        for metric, attribute, text in (
            ("outputs", "outputs_published", "Messages published and stored."),
            ("duplicates", "duplicate_publishes", "Publishes that the stream had already."),
            ("redelivered", "redeliveries", "Deliveries of messages delivered before."),
            ("lapsed", "lapses", "Deliveries let go, since the event loop stood still too long."),
        ):
            counter = Counter(f"mqinfer_{metric}", text, labels=labels)
            for name, stage in stages:
                counter.add_metric([self.app, name], getattr(stage, attribute))
            yield counter
        now = {name: stage.gauges() for name, stage in stages}
        for metric, text in (
            ("in_flight", "Messages taken from the stream and not settled."),
            ("in_flight_bytes", "Their payloads and headers."),
            ("lag", "Messages that are not done: what waits, and what is in flight anywhere."),
            ("blocked", "1 while the stage does not pull; /readyz says why."),
        ):
            gauge = Gauge(f"mqinfer_{metric}", text, labels=labels)
            for name, values in now.items():
                if metric in values:
                    gauge.add_metric([self.app, name], values[metric])
            yield gauge
        for metric, attribute, text in (
            ("handle_seconds", "handling", "From the start of a handler to the acknowledgement."),
            ("end_to_end_seconds", "ages", "From the stream's time to the acknowledgement."),
        ):
            family = HistogramMetricFamily(f"mqinfer_{metric}", text, labels=labels)
            for name, stage in stages:
                found: Histogram = getattr(stage, attribute)
                family.add_metric([self.app, name], found.buckets(), found.sum)
            yield family

    def _collect_blocks(self) -> Metric:
        from prometheus_client.core import HistogramMetricFamily

        family = HistogramMetricFamily(
            "mqinfer_loop_blocked_seconds",
            "A handler of the stage blocked the event loop.",
            labels=["app", "stage"],
        )
        # All from the start: of a series that begins with its first block no rate can be told.
        none = Histogram(BLOCK_BUCKETS)
        for stage in sorted({*self._stages, *self._blocks}):
            blocks = self._blocks.get(stage, none)
            family.add_metric([self.app, stage], blocks.buckets(), blocks.sum)
        return family

    def _collect_models(self) -> Iterator[Metric]:
        labels = ["app", "model", "version"]
        rows = [([self.app, *key], model) for key, model in sorted(self._models.items())]
        yield from _counters(
            rows,
            labels,
            ("model_requests", "requests", "Requests answered by the inference server."),
            ("model_items", "items", "Items in these requests."),
            ("model_failures", "failures", "Requests refused or not answered."),
        )
        yield _seconds(rows, labels, "model_request_seconds", "One request, with its network.")
        if self.queueing is not None:
            from prometheus_client.core import GaugeMetricFamily

            text = "1 while calls have waited for seconds: their server is what holds them up."
            queue = GaugeMetricFamily("mqinfer_model_calls_queue", text, labels=["app"])
            queue.add_metric([self.app], float(self.queueing))
            yield queue

    def _collect_sinks(self) -> Iterator[Metric]:
        labels = ["app", "table"]
        rows = [([self.app, table], sink) for table, sink in sorted(self._sinks.items())]
        yield from _counters(
            rows,
            labels,
            ("sink_rows", "rows", "Rows stored."),
            ("sink_blocks", "blocks", "Inserts that stored them."),
            ("sink_refused_rows", "refused_rows", "Rows that ClickHouse refused."),
        )
        yield _seconds(rows, labels, "sink_insert_seconds", "One insert.")


def _counters(
    rows: list[tuple[list[str], Any]], labels: list[str], *wanted: tuple[str, str, str]
) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    for metric, attribute, text in wanted:
        counter = CounterMetricFamily(f"mqinfer_{metric}", text, labels=labels)
        for values, counts in rows:
            counter.add_metric(values, getattr(counts, attribute))
        yield counter


def _seconds(
    rows: list[tuple[list[str], Any]], labels: list[str], metric: str, text: str
) -> Metric:
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(f"mqinfer_{metric}", text, labels=labels)
    for values, counts in rows:
        family.add_metric(values, counts.seconds.buckets(), counts.seconds.sum)
    return family
