"""Plain numbers: what is counted of models, sinks and blobs, and by bucket; `metrics` shows them.

Counting costs a few additions; whoever counts owns the object, and all of it is on one event loop.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

HANDLE_BUCKETS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0
)  # fmt: skip
"""Seconds; for model requests, inserts and searches."""
HANDLING_BUCKETS = (*HANDLE_BUCKETS, 300.0, 1800.0, 7200.0)
"""Seconds; for handlers, which may take as long as their timeout."""
AGE_BUCKETS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0
)  # fmt: skip
"""Seconds; from the stream's time of a message to its acknowledgement."""
BLOCK_BUCKETS = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds; that the event loop stood still."""


class Histogram:
    """Counts by bucket, as plain numbers.

    Args:
        bounds: upper bounds of the buckets; what is larger than the last is counted too.
        unit: what is observed is so many to one of the bounds: 1e9 for nanoseconds.
    """

    __slots__ = ("bounds", "counts", "total", "unit")

    def __init__(self, bounds: Sequence[float], unit: float = 1):
        self.bounds = [bound * unit for bound in bounds]
        self.counts = [0] * (len(self.bounds) + 1)
        self.total: float = 0
        self.unit = unit

    @property
    def sum(self) -> float:
        """Of all values, in the bounds' unit."""
        return self.total / self.unit

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Prometheus's cumulative form."""
        count, pairs = 0, []
        for bound, here in zip(self.bounds, self.counts, strict=False):
            count += here
            pairs.append((repr(bound / self.unit), float(count)))
        return [*pairs, ("+Inf", float(count + self.counts[-1]))]


class ModelMetrics:
    """Counts of one version of a model in this process; `Metrics.request` and `failed` count."""

    __slots__ = ("failures", "items", "requests", "seconds")

    def __init__(self) -> None:
        self.requests = 0
        self.items = 0
        self.failures = 0
        self.seconds = Histogram(HANDLE_BUCKETS)


class SinkMetrics:
    """Counts of one table's sink in this process.

    Attributes:
        rows: stored.
        blocks: inserts that stored them.
        refused_rows: that ClickHouse, or their column's type, refused.
        retries: inserts sent again, for no answer came.
        seconds: of the inserts that stored rows.
    """

    __slots__ = ("blocks", "refused_rows", "retries", "rows", "seconds")

    def __init__(self) -> None:
        self.rows = 0
        self.blocks = 0
        self.refused_rows = 0
        self.retries = 0
        self.seconds = Histogram(HANDLE_BUCKETS)

    def inserted(self, rows: int, seconds: float) -> None:
        """A block was stored."""
        self.rows += rows
        self.blocks += 1
        self.seconds.observe(seconds)

    def refused(self, rows: int = 1) -> None:
        """Rows were refused for what is in them."""
        self.refused_rows += rows


class BlobCacheMetrics:
    """Counts of the blobs that this process read through its cache on disk."""

    __slots__ = ("hit_bytes", "hits", "miss_bytes", "misses")

    def __init__(self) -> None:
        self.hits = 0
        self.hit_bytes = 0
        self.misses = 0
        self.miss_bytes = 0

    def hit(self, size: int) -> None:
        """A blob came from the disk."""
        self.hits += 1
        self.hit_bytes += size

    def miss(self, size: int) -> None:
        """A blob came from the store."""
        self.misses += 1
        self.miss_bytes += size
