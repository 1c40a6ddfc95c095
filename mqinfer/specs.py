"""Streams and consumers as an app wants them, and how far a consumer is. Plain values."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class CopyOf:
    """What a stream copies by itself (JetStream's "source").

    Attributes:
        stream: that it reads.
        transforms: pairs of subjects: those it takes, and what they are stored as.
    """

    stream: str
    transforms: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A stream as an app wants it; None leaves the server's default.

    `copies` of one without `subjects` cannot change: JetStream would copy everything again. With
    `schedules` messages may come later. With `ttls` a message may say when it is dropped, and
    `pushed` is what the server republishes, and as what: subjects with wildcards, of which only
    those see something that listen at that moment.
    """

    name: str
    subjects: tuple[str, ...]
    max_age: float | None = None
    max_bytes: int | None = None
    replicas: int = 1
    duplicate_window: float = 120.0
    copies: CopyOf | None = None
    schedules: bool = False
    ttls: bool = False
    pushed: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """A durable pull consumer as a stage wants it.

    `start_sequence` cannot change once the consumer exists; None takes the whole stream, or
    whatever an existing consumer began with.
    `start` is where one that is made begins instead: a time, or "new"; it has no effect on one that
    exists, or together with `start_sequence`. `max_ack_pending` is how many messages
    may be unacknowledged, over all workers; -1 leaves that to the slots of the workers. With
    `window_kept` one that exists keeps its own. One of a single `reader` is kept in memory, and is
    gone when nobody has asked it for so many seconds.
    """

    name: str
    stream: str
    filters: tuple[str, ...]
    ack_wait: float = 30.0
    start_sequence: int | None = None
    start: datetime.datetime | Literal["new"] | None = None
    max_ack_pending: int = -1
    window_kept: bool = False
    reader: float | None = None


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """How far a consumer is; lag = waiting + unacknowledged.

    Attributes:
        name: of the consumer.
        waiting: messages that were never delivered.
        unacknowledged: messages that were, and have no end.
        redelivered: of these, those delivered more than once.
        acknowledged_floor: the sequence up to which all is done.
        delivered: the newest sequence that was delivered.
        deliveries: there were, repeats included: the number of the last one.
        requests: of all workers, that wait for messages.
        max_ack_pending: messages that may be unacknowledged.
    """

    name: str
    waiting: int
    unacknowledged: int
    redelivered: int
    acknowledged_floor: int
    delivered: int
    deliveries: int = 0
    requests: int = 0
    max_ack_pending: int = -1

    @property
    def lag(self) -> int:
        """Messages that are not done."""
        return self.waiting + self.unacknowledged
