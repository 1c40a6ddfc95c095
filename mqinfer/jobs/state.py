"""State: what is kept of a job, and how it changes. Pure.

    open ──> completed | partial | failed     every chunk is done
      └─(stopping)──> canceled | expired | failed     what was under way has ended
    an end ── retried ──> open, for what failed and what never ran

Each change is a compare-and-set of the one value that a job is, so that two who drive it never both
make one. A chunk is counted in the same write that says that it is done, and so once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec
from msgspec import Struct

Status = Literal["open", "completed", "partial", "failed", "canceled", "expired"]
Stop = Literal["canceled", "failed", "expired"]

WIDTH: Final = 8  # chunks in flight
LOST: Final = 10.0  # seconds after which a chunk is taken over whose driver has not published it
GRACE: Final = 5.0  # seconds for which what is under way may end by itself, once a job stops
LONG: Final = 30.0  # seconds after which whoever looks ends it, where no worker does
ROUNDS: Final = 250


class Flight(Struct, array_like=True, frozen=True):
    """A chunk in flight.

    Attributes:
        number: of the chunk.
        claimed: when somebody began to publish it, in seconds since the epoch.
        published: whether it is.
    """

    number: int
    claimed: float
    published: bool = False


class Counts(Struct, array_like=True, frozen=True):
    """How many rows ended how.

    Attributes:
        succeeded: with all that came of them.
        partial: something that came of them died, and they have answers.
        failed: they have none, and errors.
    """

    succeeded: int = 0
    partial: int = 0
    failed: int = 0

    @property
    def rows(self) -> int:
        """All of them."""
        return self.succeeded + self.partial + self.failed

    def plus(self, other: Counts, sign: int = 1) -> Counts:
        """The sum, or the difference."""
        return Counts(
            self.succeeded + sign * other.succeeded,
            self.partial + sign * other.partial,
            self.failed + sign * other.failed,
        )


class Unread(Struct, frozen=True, omit_defaults=True):
    """Rows that a worker is still to read.

    Attributes:
        rows: what is read, as `jobs.source` names it: `blob:path`, or `blob:prefix/` of pictures.
        most: rows of a chunk.
        form: of a file; "" is what its name ends in.
        prefix: of the paths of blobs that rows may name; "" is any.
    """

    rows: str
    most: int
    form: str = ""
    prefix: str = ""


class State(Struct, frozen=True, omit_defaults=True):
    """A job.

    Attributes:
        id: of the job.
        endpoint: that is asked.
        created: when it was accepted, in seconds since the epoch; so are the others:
        deadline: when it ends, whatever came of it.
        expires: when it is forgotten.
        keep: seconds for which its end is kept.
        lasts: seconds that it may take, each time it is opened.
        fingerprint: of what was submitted.
        folder: of its blobs.
        rows: that it has.
        chunks: that these are in.
        tenant: who submitted it.
        max_failures: how many rows may fail in a round before it is stopped; -1 is any number.
        status: "open", or its end.
        stopping: the end that it comes to, once what is under way has ended.
        stopped: since when.
        ended: when it ended.
        round: 0, and one more each time that what failed is tried again.
        failures: rows that had failed when the round began.
        cursor: chunks before it were admitted in this round, or need not be.
        flight: those that are under way.
        parts: a byte a chunk: one more than the round that its newest part is of; 0 for none.
        again: a bit a chunk: whether something in that part can be tried again.
        counts: of rows in parts.
        written: whether its results and errors, as of this end, are a file each.
        sizes: the bytes of these.
        unread: its rows, where they were not read before it was accepted, until they are.
        reason: why it has failed as a whole; "" where that is told of its rows.
    """

    id: str
    endpoint: str
    created: float
    deadline: float
    expires: float
    keep: float
    lasts: float
    fingerprint: str
    folder: str
    rows: int
    chunks: int
    tenant: str = ""
    max_failures: int = -1
    status: Status = "open"
    stopping: Stop | None = None
    stopped: float = 0.0
    ended: float = 0.0
    round: int = 0
    failures: int = 0
    cursor: int = 0
    flight: tuple[Flight, ...] = ()
    parts: bytes = b""
    again: bytes = b""
    counts: Counts = Counts()
    written: bool = False
    sizes: tuple[int, int] | None = None
    unread: Unread | None = None
    reason: str = ""

    @property
    def open(self) -> bool:
        """Whether it has not ended."""
        return self.status == "open"


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(State).decode
_replace = msgspec.structs.replace


def blank(chunks: int) -> tuple[bytes, bytes]:
    """`parts` and `again` of a job that begins."""
    return bytes(chunks), bytes((chunks + 7) // 8)


def lives(state: State, now: float) -> float:
    """Seconds after which the server drops a state that is written now.

    No sooner than any that it replaces; see `requests.state.lives`.
    """
    return max(state.expires, max(state.deadline, state.ended) + state.keep) - now


def planned(state: State, folder: str, rows: int, chunks: int) -> State:
    """A job whose rows are read, and stored in chunks in a folder."""
    if not state.open or state.unread is None:
        return state
    parts, again = blank(chunks)
    return _replace(
        state, unread=None, folder=folder, rows=rows, chunks=chunks, parts=parts, again=again
    )


def unreadable(state: State, reason: str, now: float) -> State:
    """A job whose rows cannot be read, as a whole."""
    if not state.open or state.unread is None:
        return state
    return _replace(ended(stopped(state, "failed", now), now), unread=None, reason=reason)


def claimed(state: State, now: float) -> tuple[State, tuple[int, ...]]:
    """Chunks for whoever makes this change to publish: new ones, and those whose driver is gone.

    Args:
        state: as it is kept.
        now: seconds since the epoch.
    """
    if not state.open or state.stopping is not None:
        return state, ()
    lost = [one for one in state.flight if not one.published and one.claimed + LOST <= now]
    mine = [one.number for one in lost]
    flight = [Flight(one.number, now) if one in lost else one for one in state.flight]
    cursor = state.cursor
    while len(flight) < WIDTH and cursor < state.chunks:
        if _runs(state, cursor):
            flight.append(Flight(cursor, now))
            mine.append(cursor)
        cursor += 1
    if not mine and cursor == state.cursor:
        return state, ()
    return _replace(state, flight=tuple(flight), cursor=cursor), tuple(mine)


def published(state: State, turn: int, number: int) -> State:
    """A chunk of a round is on the stream."""
    if state.round != turn:
        return state
    flight = tuple(
        Flight(one.number, one.claimed, published=True) if one.number == number else one
        for one in state.flight
    )
    return state if flight == state.flight else _replace(state, flight=flight)


def waits(state: State, turn: int, number: int) -> bool:
    """Whether a chunk of a round is under way, and what comes of it counts."""
    return state.open and state.round == turn and any(one.number == number for one in state.flight)


def done(state: State, turn: int, number: int, change: Counts, *, again: bool, now: float) -> State:
    """A chunk's part is stored.

    Args:
        state: as it is kept.
        turn: the round.
        number: of the chunk.
        change: of the counts.
        again: whether something in it can be tried again.
        now: seconds since the epoch.
    """
    if not waits(state, turn, number):
        return state
    parts, bits = bytearray(state.parts), bytearray(state.again)
    parts[number] = turn + 1
    mask = 1 << number % 8
    bits[number // 8] = bits[number // 8] | mask if again else bits[number // 8] & ~mask
    after = _replace(
        state,
        flight=tuple(one for one in state.flight if one.number != number),
        parts=bytes(parts),
        again=bytes(bits),
        counts=state.counts.plus(change),
    )
    if 0 <= state.max_failures < after.counts.failed - state.failures:
        return stopped(after, "failed", now)
    return after


def stopped(state: State, why: Stop, now: float) -> State:
    """Nothing more is begun, and what is under way comes to its end."""
    if not state.open or state.stopping is not None:
        return state
    return _replace(state, stopping=why, stopped=now)


def put_back(state: State, turn: int, flight: Iterable[Flight]) -> State:
    """Nothing more comes of these chunks of a round."""
    if state.round != turn:
        return state
    gone = {one.number for one in flight}
    left = tuple(one for one in state.flight if one.number not in gone)
    return state if left == state.flight else _replace(state, flight=left)


def complete(state: State) -> bool:
    """Whether it is open, and nothing is left to be done."""
    left = state.unread is not None or _left(state)
    return state.open and not state.flight and (state.stopping is not None or not left)


def ended(state: State, now: float, sizes: tuple[int, int] | None = None) -> State:
    """A job at its end, which is left open until then; what is still under way counts no more.

    Args:
        state: as it is kept.
        now: seconds since the epoch.
        sizes: bytes of the files of its results and errors; None: it has none.
    """
    if not state.open:
        return state
    counts = state.counts
    status: Status
    if state.stopping is not None:
        status = state.stopping
    elif not counts.partial and not counts.failed:
        status = "completed"
    else:
        status = "partial" if counts.succeeded or counts.partial else "failed"
    expires = now + state.keep
    end = {"status": status, "flight": (), "ended": now, "expires": expires}
    return _replace(state, **end, written=sizes is not None, sizes=sizes)


def forgotten(state: State, now: float) -> State:
    """What is left of a job that nobody wants to find any more."""
    gone = ended(stopped(state, "canceled", now), now)
    return _replace(gone, expires=now, parts=b"", again=b"", chunks=0, unread=None, reason="")


def overdue(state: State, now: float) -> bool:
    """Whether whoever looks ends it, since no worker does."""
    since = state.stopped if state.stopping is not None else state.deadline
    return state.open and since + LONG <= now


def given_up(state: State, now: float) -> State:
    """A job that is overdue, at its end: of one of which nothing is left that is what it was."""
    return ended(state if complete(state) else stopped(state, "expired", now), now)


def can_retry(state: State) -> bool:
    """Whether it has ended, and something in it failed that can be tried again, or never ran."""
    ended = not state.open and state.round < ROUNDS
    return ended and any(_again(state, number) for number in range(state.chunks))


def retried(state: State, now: float) -> State:
    """A job that has ended, open again for what failed and what never ran."""
    if not can_retry(state):
        return state
    deadline = now + state.lasts
    return _replace(
        state,
        status="open",
        stopping=None,
        stopped=0.0,
        ended=0.0,
        written=False,
        sizes=None,
        round=state.round + 1,
        failures=state.counts.failed,
        cursor=0,
        deadline=deadline,
        expires=deadline + state.keep,
    )


def part_of(state: State, number: int) -> int | None:
    """The round of a chunk's newest part; None where there is none."""
    found = state.parts[number]
    return found - 1 if found else None


def _left(state: State) -> bool:
    """Whether chunks wait to be admitted in this round."""
    return any(_runs(state, number) for number in range(state.cursor, state.chunks))


def _runs(state: State, number: int) -> bool:
    """Whether a chunk that was not admitted in this round is to be."""
    return not state.round or _again(state, number)


def _again(state: State, number: int) -> bool:
    """Whether a chunk has something that can be tried again, or never ran."""
    return not state.parts[number] or bool(state.again[number // 8] >> number % 8 & 1)
