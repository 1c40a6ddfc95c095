"""What a server counts of each version of a model: for ModelStatistics and for Prometheus.

The names are Triton's, so that a dashboard for the one shows the other.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tritonclient.grpc import service_pb2 as pb

REASONS = ("OTHER", "BACKEND", "REJECTED", "CANCELED")


@dataclass(slots=True)
class Duration:
    """How often something was done, and how long that took together, in nanoseconds."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int, count: int = 1) -> None:
        """Once more."""
        self.count += count
        self.ns += ns

    def message(self) -> Any:
        """For an answer."""
        return pb.StatisticDuration(count=self.count, ns=self.ns)


@dataclass(slots=True)
class Phases:
    """Of an execution: reading its inputs, running it, writing its outputs."""

    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)

    def add(self, ns: Sequence[int], count: int = 1) -> None:
        """One more execution, of so many requests."""
        self.compute_input.add(ns[0] * count, count)
        self.compute_infer.add(ns[1] * count, count)
        self.compute_output.add(ns[2] * count, count)


class Statistics:
    """Of one version of a model since it was loaded.

    Args:
        model: its name.
        version: its number.
    """

    def __init__(self, model: str, version: int):
        self.model = model
        self.version = str(version)
        self.pending = 0
        self._rows = 0
        self._last_ms = 0
        self._success = Duration()
        self._fail = Duration()
        self._queue = Duration()
        self._requests = Phases()
        self._batches: dict[int, Phases] = {}
        self._failures = Counter(dict.fromkeys(REASONS, 0))

    def executed(self, requests: int, rows: int, ns: Sequence[int]) -> None:
        """One execution for so many requests, which took so long in its three phases."""
        self._rows += rows
        self._last_ms = int(time.time() * 1000)
        self._requests.add(ns, requests)
        self._batches.setdefault(rows, Phases()).add(ns)

    def answered(self, waited: int, took: int) -> None:
        """A request was answered; nanoseconds in the queue, and from its arrival."""
        self._queue.add(waited)
        self._success.add(took)

    def failed(self, reason: str, took: int) -> None:
        """A request was not answered; one of REASONS, nanoseconds from its arrival."""
        self._failures[reason] += 1
        self._fail.add(took)

    def message(self) -> Any:
        """For ModelStatistics."""
        return pb.ModelStatistics(
            name=self.model,
            version=self.version,
            last_inference=self._last_ms,
            inference_count=self._rows,
            execution_count=self._executions,
            inference_stats=pb.InferStatistics(
                success=self._success.message(),
                fail=self._fail.message(),
                queue=self._queue.message(),
                compute_input=self._requests.compute_input.message(),
                compute_infer=self._requests.compute_infer.message(),
                compute_output=self._requests.compute_output.message(),
                cache_hit=pb.StatisticDuration(),
                cache_miss=pb.StatisticDuration(),
            ),
            batch_stats=[
                pb.InferBatchStatistics(
                    batch_size=size,
                    compute_input=phases.compute_input.message(),
                    compute_infer=phases.compute_infer.message(),
                    compute_output=phases.compute_output.message(),
                )
                for size, phases in sorted(self._batches.items())
            ],
        )

    @property
    def _executions(self) -> int:
        return sum(phases.compute_infer.count for phases in self._batches.values())

    def samples(self) -> dict[str, int]:
        """Its counters by their names in Prometheus, failures apart."""
        return {
            "request_success": self._success.count,
            "count": self._rows,
            "exec_count": self._executions,
            "request_duration_us": self._success.ns // 1000,
            "queue_duration_us": self._queue.ns // 1000,
            "compute_input_duration_us": self._requests.compute_input.ns // 1000,
            "compute_infer_duration_us": self._requests.compute_infer.ns // 1000,
            "compute_output_duration_us": self._requests.compute_output.ns // 1000,
            "pending_request_count": self.pending,
        }

    def failures(self) -> dict[str, int]:
        """Its failures by their reason."""
        return dict(self._failures)


# Name without its prefix, what it is, its type: in the order in which Triton has them.
_FAMILIES = (
    ("request_success", "Number of successful inference requests, all batch sizes"),
    ("request_failure", "Number of failed inference requests, all batch sizes"),
    ("count", "Number of inferences performed (does not include cached requests)"),
    ("exec_count", "Number of model executions performed (does not include cached requests)"),
    ("request_duration_us", "Cumulative inference request duration in microseconds"),
    ("queue_duration_us", "Cumulative inference queuing duration in microseconds"),
    ("compute_input_duration_us", "Cumulative compute input duration in microseconds"),
    ("compute_infer_duration_us", "Cumulative compute inference duration in microseconds"),
    ("compute_output_duration_us", "Cumulative inference compute output duration in microseconds"),
    (
        "pending_request_count",
        "Instantaneous number of pending requests awaiting execution per-model.",
    ),
)


def prometheus(models: Iterable[Statistics]) -> str:
    """The counters of several versions in Prometheus's text format."""
    all_of_them = [(one, one.samples()) for one in models]
    lines = []
    for family, text in _FAMILIES:
        name = f"nv_inference_{family}"
        kind = "gauge" if family == "pending_request_count" else "counter"
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        for one, samples in all_of_them:
            # A folder may have any name; a label's value may not.
            model = one.model.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
            if family == "request_failure":
                lines += [
                    f'{name}{{model="{model}",reason="{reason}",version="{one.version}"}} {count}'
                    for reason, count in one.failures().items()
                ]
            else:
                lines.append(f'{name}{{model="{model}",version="{one.version}"}} {samples[family]}')
    return "\n".join(lines) + "\n"
