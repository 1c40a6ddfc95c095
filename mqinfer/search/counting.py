"""Counting: what a process that holds shards does, as Prometheus reads it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mqinfer.counts import HANDLE_BUCKETS, Histogram

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from mqinfer.search.generations import Generation
    from mqinfer.search.protocol import ShardState

Model = tuple[str, str]  # an index, and one of its models


class Searches:
    """Counts of what the shards of one model are asked; on the event loop.

    Attributes:
        seconds: from a question to its answer, also to one that refuses it.
        refused: questions that were at fault.
    """

    __slots__ = ("refused", "seconds")

    def __init__(self) -> None:
        self.seconds = Histogram(HANDLE_BUCKETS)
        self.refused = 0


class Counting:
    """Counts of one process.

    Args:
        app: the app's name.

    Attributes:
        searches: by index and model.
        searched: the generation that searches go to, by index and model.
    """

    def __init__(self, app: str):
        self._app = app
        self.searches: defaultdict[Model, Searches] = defaultdict(Searches)
        self.searched: dict[Model, Generation] = {}

    def render(self, states: Sequence[ShardState]) -> bytes:
        """Prometheus's text format; in any thread.

        Args:
            states: of the shards that are held here.
        """
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self.now(states))
        return generate_latest(registry)

    def now(self, states: Sequence[ShardState]) -> Now:
        """The same, for a registry."""
        return Now(self._app, dict(self.searches), dict(self.searched), states)


class Now:
    """What there is to collect."""

    def __init__(
        self,
        app: str,
        searches: Mapping[Model, Searches],
        searched: Mapping[Model, Generation],
        states: Sequence[ShardState],
    ):
        self._app = app
        self._searches, self._searched, self._states = searches, searched, states

    def collect(self) -> Iterator[Metric]:
        """For the registry."""
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        of_model = ["app", "index", "model"]
        of_shard = [*of_model, "generation", "shard", "searched"]
        for name, text, value in _GAUGES:
            gauge = GaugeMetricFamily(f"mqinfer_index_{name}", text, labels=of_shard)
            for state in self._states:
                gauge.add_metric(self._labels(state), value(state))
            yield gauge
        shards = GaugeMetricFamily(
            "mqinfer_index_shards", "Of the generation that is searched.", labels=of_model
        )
        for (index, model), generation in self._searched.items():
            shards.add_metric([self._app, index, model], generation.shards)
        yield shards
        seconds = HistogramMetricFamily(
            "mqinfer_index_search_seconds", "Of a shard, to its answer.", labels=of_model
        )
        refused = CounterMetricFamily(
            "mqinfer_index_refused_searches", "Questions that were at fault.", labels=of_model
        )
        for (index, model), asked in sorted(self._searches.items()):
            labels = [self._app, index, model]
            seconds.add_metric(labels, asked.seconds.buckets(), asked.seconds.sum)
            refused.add_metric(labels, asked.refused)
        yield seconds
        yield refused

    def _labels(self, state: ShardState) -> list[str]:
        current = self._searched.get((state.index, state.model))
        searched = current is not None and current.number == state.generation
        return [
            *(self._app, state.index, state.model),
            *(str(state.generation), str(state.shard), str(searched).lower()),
        ]


_GAUGES: tuple[tuple[str, str, Any], ...] = (
    ("vectors", "Vectors that are held.", lambda state: state.count),
    ("frozen", "Slots of the graph.", lambda state: state.frozen),
    ("bytes", "That the vectors take.", lambda state: state.nbytes),
    ("lag", "Messages that are not read yet; -1 while it is loaded.", lambda state: state.lag),
    ("ready", "1 where it answers.", lambda state: float(state.ready)),
)
