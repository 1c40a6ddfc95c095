"""Tools: the connections of a process that holds shards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mqinfer.blob import BlobStore
    from mqinfer.ports import Broker, Core, Database
    from mqinfer.search.generations import Generations


@dataclass(frozen=True, slots=True)
class Tools:
    """Connections, handed in.

    Attributes:
        broker: JetStream.
        core: NATS without a stream.
        store: of blobs, for snapshots.
        generations: of the app's indexes.
        database: ClickHouse; None: vectors come of snapshots and the stream alone.
        snapshot_every: seconds between snapshots of a shard that changes.
    """

    broker: Broker
    core: Core
    store: BlobStore
    generations: Generations
    database: Database | None
    snapshot_every: float = 300.0
