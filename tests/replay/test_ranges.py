"""The stretch of a stream that a replay takes: what was asked for, met with what there is."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.errors import ConfigurationError
from mqinfer.replay.ranges import Bounds, Wanted, fixed

NOON = datetime.datetime(2026, 5, 1, 12, tzinfo=datetime.UTC)


def at(second: float) -> datetime.datetime:
    return NOON + datetime.timedelta(seconds=second)


class Stream:
    """A message a second: that of sequence n is stored n seconds after noon."""

    def __init__(self, first: int, last: int):
        self.first, self.last = first, last

    async def sequence_at(self, _stream: str, moment: datetime.datetime) -> int | None:
        for sequence in range(self.first, self.last + 1):
            if at(sequence) >= moment:
                return sequence
        return None


async def ask(wanted: Wanted, first: int = 1, last: int = 20, deleted: int = 0) -> tuple[int, int]:
    start, end, _ = await fixed(wanted, Bounds(first, last, deleted), "s", Stream(first, last))
    return start, end


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Wanted(), (1, 20)),
        (Wanted(since=at(5)), (5, 20)),
        (Wanted(since=at(4.5)), (5, 20)),
        (Wanted(until=at(5)), (1, 5)),
        (Wanted(until=at(5.5)), (1, 5)),
        (Wanted(since=at(5), until=at(5)), (5, 5)),
        (Wanted(from_seq=7, since=at(5)), (7, 20)),
        (Wanted(from_seq=3, since=at(5)), (5, 20)),
        (Wanted(to_seq=7, until=at(5)), (1, 5)),
        (Wanted(to_seq=3, until=at(5)), (1, 3)),
        (Wanted(until=at(500)), (1, 20)),
    ],
)
async def test_the_narrower_of_sequence_and_time_counts(
    wanted: Wanted, found: tuple[int, int]
) -> None:
    assert await ask(wanted) == found


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (Wanted(from_seq=9, to_seq=8), "ends before it begins"),
        (Wanted(since=at(9), until=at(8)), r"ends \(2026-05-01 12:00:08 UTC\) before it begins"),
        (Wanted(since=at(9.7), until=at(9.2)), "before it begins"),
        (Wanted(from_seq=10, until=at(8)), r"ends \(2026-05-01 12:00:08 UTC\) before it begins"),
        (Wanted(from_seq=9, until=at(8)), "before it begins"),
        (Wanted(since=at(9), to_seq=8), "ends before it begins"),
        (Wanted(from_seq=21), "ahead of the end"),
        (Wanted(since=at(100)), "ahead of the end"),
        (Wanted(to_seq=4), "was removed by retention: stream s begins at 6"),
        (Wanted(from_seq=2, to_seq=4), "was removed by retention: stream s begins at 6"),
    ],
)
async def test_what_cannot_be_is_refused_with_why(wanted: Wanted, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        await ask(wanted, first=6)


async def test_what_is_not_there_any_more_is_said() -> None:
    bounds, stream = Bounds(6, 20, 3), Stream(6, 20)
    start, end, notes = await fixed(Wanted(from_seq=2, to_seq=30), bounds, "s", stream)
    assert (start, end) == (6, 20)
    assert [note.split(":")[0] for note in notes] == [
        "the stream ends at 20, and so does the run",
        "retention has removed 2 to 5",
        "3 messages between 6 and 20 were deleted from the stream; those of the range are not "
        "replayed",
    ]
    # Who asked for no beginning misses nothing that was asked for.
    assert (await fixed(Wanted(), Bounds(6, 20), "s", stream))[2] == ()


_sequences = st.none() | st.integers(1, 30)
_times = st.none() | st.floats(0, 30).map(at)


@given(_sequences, _sequences, _times, _times, st.integers(1, 10), st.integers(10, 25))
async def test_a_range_holds_what_was_asked_for_and_is_there(
    from_seq: int | None,
    to_seq: int | None,
    since: datetime.datetime | None,
    until: datetime.datetime | None,
    first: int,
    last: int,
) -> None:
    there = [
        sequence
        for sequence in range(first, last + 1)
        if (from_seq is None or sequence >= from_seq)
        and (to_seq is None or sequence <= to_seq)
        and (since is None or at(sequence) >= since)
        and (until is None or at(sequence) <= until)
    ]
    try:
        start, end = await ask(Wanted(from_seq, to_seq, since, until), first, last)
    except ConfigurationError:
        assert not there
    else:
        assert list(range(start, end + 1)) == there
