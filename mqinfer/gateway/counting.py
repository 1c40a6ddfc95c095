"""Counting: what the gateway does, as Prometheus reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mqinfer.counts import Histogram

if TYPE_CHECKING:
    from prometheus_client.core import Metric

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Counting:
    """Counts of one process.

    Attributes:
        answered: by route and status.
        accepting: seconds from the head of a request until it was accepted.
        streams: of events that are open.
        waiting: requests whose answer is waited for.
    """

    def __init__(self, app: str):
        self._app = app
        self.answered: Counter[tuple[str, int]] = Counter()
        self.accepting = Histogram(BUCKETS)
        self.streams = 0
        self.waiting = 0

    def render(self) -> bytes:
        """Prometheus's text format."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """For the registry."""
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        labels = ["app"]
        answers = CounterMetricFamily(
            "mqinfer_gateway_answers",
            "Answers by route and status.",
            labels=["app", "route", "status"],
        )
        for (route, status), count in sorted(self.answered.items()):
            answers.add_metric([self._app, route, str(status)], count)
        yield answers
        seconds = HistogramMetricFamily(
            "mqinfer_gateway_accept_seconds", "From head to acceptance.", labels=labels
        )
        seconds.add_metric([self._app], self.accepting.buckets(), self.accepting.sum)
        yield seconds
        for name, text, value in (
            ("streams", "Streams of events that are open.", self.streams),
            ("waiting", "Requests whose answer is waited for.", self.waiting),
        ):
            gauge = GaugeMetricFamily(f"mqinfer_gateway_{name}", text, labels=labels)
            gauge.add_metric([self._app], value)
            yield gauge
