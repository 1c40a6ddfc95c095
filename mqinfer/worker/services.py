"""Services: the outside world as a worker is given it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mqinfer.starting import Patience

if TYPE_CHECKING:
    from collections.abc import Callable

    from mqinfer.blob import BlobStore
    from mqinfer.context import Context
    from mqinfer.inference.inference import Inference
    from mqinfer.observe import Metrics
    from mqinfer.ports import Broker, Core, Database
    from mqinfer.streams import Streams
    from mqinfer.timers.table import Table
    from mqinfer.tracing.spans import Tracing
    from mqinfer.worker.renewals import Lines


@dataclass(frozen=True, slots=True)
class Services:
    """Open connections, handed in.

    Attributes:
        broker: JetStream.
        store: of blobs.
        inference: model calls; None when no stage uses a model.
        database: ClickHouse; None when no table is written.
        metrics: of this process.
        inline_limit: bytes of a blob that may ride in its message.
        patience: how the start waits for the broker.
        streams: to look into what is stored.
        lines: further connections to the broker; None renews nothing while a handler blocks the
            event loop.
        timers: of the app; None where nothing can set one.
        request_secret: that the ids of requests with a key are made with.
        core: what is said without a stream; None where nobody listens.
        tracing: makes spans; None makes none.
    """

    broker: Broker
    store: BlobStore | None
    inference: Inference | None
    database: Database | None
    metrics: Metrics
    inline_limit: int = 65536
    patience: Patience = field(default_factory=Patience)
    lines: Lines | None = None
    streams: Streams | None = None
    timers: Table | None = None
    core: Core | None = None
    request_secret: str = ""
    tracing: Tracing | None = None

    @property
    def sides(self) -> Callable[[Context], tuple[bool, ...]] | None:
        """Tells messages apart that are of a canary's share; None where no model is asked."""
        return None if self.inference is None else self.inference.canaried.sides
