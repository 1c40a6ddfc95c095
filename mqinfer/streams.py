"""Streams: what JetStream keeps, to be looked at without consuming; `adapters.scan` reads it."""

from __future__ import annotations

import datetime
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from mqinfer.ports import ConsumerSpec, StreamSpec


@dataclass(frozen=True, slots=True)
class Stored:
    """One message as its stream keeps it.

    Attributes:
        stream: that holds it.
        subject: it was published on.
        sequence: its place.
        time: when it was stored.
        headers: as they were published.
        data: the payload.
    """

    stream: str
    subject: str
    sequence: int
    time: datetime.datetime
    headers: dict[str, str]
    data: bytes


class Streams(Protocol):
    """Streams that can be looked into.

    All methods raise `Unavailable` where the server does not answer.
    """

    async def stream_info(self, stream: str) -> dict[str, Any] | None:
        """Configuration and state as JetStream gives them, or None if there is no such stream."""

    async def stream_created(self, stream: str) -> str | None:
        """When the stream was made, which tells it from a later one of the same name, or None."""

    async def consumer_info(self, stream: str, consumer: str) -> dict[str, Any] | None:
        """Configuration and state of a consumer, or None."""

    async def consumers(self, stream: str) -> list[dict[str, Any]]:
        """Configuration and state of every consumer of a stream; none if there is no stream."""

    async def pending(self, spec: ConsumerSpec) -> int:
        """Messages that a consumer would begin with; 0 if there is no stream."""

    async def subjects(self, stream: str, subject: str = ">") -> dict[str, int]:
        """How many messages the stream holds under each subject; none if there is no stream."""

    async def newest(self, stream: str, subject: str) -> int:
        """Where the newest message of a subject lies, as the stream's leader says; 0: nowhere."""

    async def stream_conflicts(self, spec: StreamSpec) -> list[str]:
        """Why a worker could not make the stream, or change it to `spec`; changes nothing."""

    async def consumer_conflicts(self, spec: ConsumerSpec) -> list[str]:
        """Why a worker could not change the consumer to `spec`; changes nothing."""

    async def message(
        self, stream: str, sequence: int, *, subject: str | None = None
    ) -> Stored | None:
        """The message at `sequence`; with `subject`, the first of that subject from there on."""

    def messages(
        self,
        stream: str,
        subject: str = ">",
        *,
        first: int = 1,
        last: int | None = None,
        since: datetime.datetime | None = None,
    ) -> AsyncGenerator[Stored]:
        """The messages that the stream holds now, in its order.

        What is published after the start of the scan is not part of it, so that a scan that sends
        messages back cannot run after its own tail. But of a bucket there is one message of each
        key, also of one that is written anew meanwhile, unless `last` says where to end.

        Args:
            stream: its name; one that does not exist has no messages.
            subject: filter, with wildcards.
            first: sequence to begin at.
            last: sequence to end at.
            since: when the first was stored.
        """

    def no_timers(self) -> str | None:
        """Why this server cannot keep timers, and what to do; None if it can."""

    async def delete(self, stream: str, sequence: int) -> bool:
        """Delete one message; False if it was not there any more."""
