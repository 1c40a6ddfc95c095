"""Ranges: the stretch of a stream that a replay takes, of what was asked for and what there is."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Protocol

from mqinfer.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a stream holds: first and last sequence, and how many in between are deleted."""

    first: int
    last: int
    deleted: int = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A range as it was asked for; None is open.

    Attributes:
        from_seq: first sequence.
        to_seq: last sequence.
        since: first time.
        until: last time.
    """

    from_seq: int | None = None
    to_seq: int | None = None
    since: datetime.datetime | None = None
    until: datetime.datetime | None = None


class Times(Protocol):
    """Who knows when what was stored."""

    async def sequence_at(self, stream: str, moment: datetime.datetime) -> int | None:
        """The first sequence that was stored at `moment` or later, or None."""


async def fixed(
    wanted: Wanted, bounds: Bounds, stream: str, times: Times
) -> tuple[int, int, tuple[str, ...]]:
    """First and last sequence of a range, and what is to be said about them before the start.

    Args:
        wanted: as it was asked for.
        bounds: what the stream holds now.
        stream: its name.
        times: of its messages.

    Raises:
        ConfigurationError: nothing of it is there, or it ends before it begins.
    """
    last = bounds.last
    notes = []
    start = wanted.from_seq or 1
    if wanted.since is not None:
        found = await times.sequence_at(stream, wanted.since)
        start = max(start, last + 1 if found is None else found)
    end = last if wanted.to_seq is None else wanted.to_seq
    if end > last:
        notes.append(f"the stream ends at {last:,}, and so does the run")
        end = last
    if wanted.until is not None:
        # Up to and with `until`; the server's times are finer than ours.
        after = wanted.until + datetime.timedelta(microseconds=1)
        found = await times.sequence_at(stream, after)
        end = min(end, last if found is None else found - 1)
    if wanted.to_seq is not None and start > wanted.to_seq:
        raise ConfigurationError(
            f"the range {start:,} to {wanted.to_seq:,} is empty: it ends before it begins"
        )
    if start > last:
        raise ConfigurationError(
            f"the range begins at {start:,}, ahead of the end of stream {stream} ({last:,})"
        )
    # Two moments with nothing between them are no mistake: that run is empty.
    if wanted.until is not None and (
        (wanted.from_seq or 0) > end or (wanted.since is not None and wanted.until < wanted.since)
    ):
        raise ConfigurationError(
            f"the range is empty: it ends ({wanted.until:%Y-%m-%d %H:%M:%S %Z}) before it begins "
            f"(at {start:,})"
        )
    if bounds.first > max(end, start):
        raise ConfigurationError(
            f"all of {start:,} to {end:,} was removed by retention: stream {stream} begins at "
            f"{bounds.first:,}"
        )
    explicit = wanted.from_seq is not None or wanted.since is not None
    if start < bounds.first:
        if explicit:
            notes.append(
                f"retention has removed {start:,} to {bounds.first - 1:,}: the run begins at "
                f"{bounds.first:,}"
            )
        start = bounds.first
    if bounds.deleted:
        notes.append(
            f"{bounds.deleted:,} messages between {bounds.first:,} and {last:,} were deleted "
            "from the stream; those of the range are not replayed"
        )
    return start, end, tuple(notes)
