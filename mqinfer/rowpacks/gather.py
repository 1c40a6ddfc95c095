"""Gather: rows that leave in one turn of the event loop leave in one message.

What handlers that end in the same turn have written of one type is put together by one call at the
turn's end; a row that is alone goes then too, so nothing waits for company. A pack is bounded in
rows and bytes, and what the stream finds too large is cut in two rather than refused.

Promise 1: whoever hands in rows hears of them once all are stored, or one is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING

from mqinfer.errors import PayloadTooLarge
from mqinfer.identity import output_block
from mqinfer.message import Wire
from mqinfer.rowpacks.layout import ID_BYTES, Lineages, write

if TYPE_CHECKING:
    from mqinfer.ports import Broker, PublishDone

MAX_ROWS = 2_000
MAX_BYTES = 256 * 1024
_PER_ROW = ID_BYTES + 2  # beside its own bytes
_NEWEST = 0.02  # share of the newest pack in the mean of them


def largest(max_payload: int) -> int:
    """Bytes of a pack at most, where a message takes `max_payload`; a larger row goes alone."""
    return min(MAX_BYTES, max_payload // 4)


class Group:
    """Rows that share a lineage, on their way into packs.

    Args:
        lines: the header lines of their lineage, each with its end.

    Attributes:
        ids: their identities.
        rows: their payloads.
        done: called once, when all are stored or one is not.
    """

    __slots__ = ("_error", "_repeat", "done", "ids", "left", "lines", "rows", "size")

    def __init__(self, lines: str):
        self.lines = lines
        self.ids: list[str] = []
        self.rows: list[bytes] = []
        self.size = len(lines)
        self.left = 0  # packs that hold some of them and are not stored
        self.done: PublishDone
        self._error: Exception | None = None
        self._repeat = True

    def add(self, identity: str, row: bytes) -> None:
        """One more row."""
        self.ids.append(identity)
        self.rows.append(row)
        self.size += len(row) + _PER_ROW

    def stored(self, error: Exception | None, repeat: bool) -> None:
        """A pack with some of them was stored, or refused."""
        self.left -= 1
        self._error = self._error or error
        self._repeat = self._repeat and repeat
        if self.left == 0:
            self.done(self._error, self._repeat)


# Of a group, the rows from one to before another.
Piece = tuple[Group, int, int]


class Gatherer:
    """Packs of one type from one stage, or client.

    Args:
        subject: of the packs.
        heads: by format of the rows, the header lines of a pack.
        broker: that publishes.
        timeout: seconds that a pack may take to be stored; None is for ever.
        texts: whether identities are any texts, rather than 32 hexadecimal digits.

    Attributes:
        largest: bytes of a pack at most, and of its rows; looked up once for each pack.
        rows_a_pack: in the mean of the last hundred packs or so; 1 before the first.
    """

    def __init__(
        self,
        subject: bytes,
        heads: Mapping[Wire, str],
        broker: Broker,
        timeout: float | None = None,
        *,
        texts: bool = False,
    ):
        self._subject = subject
        self._heads = heads
        self._broker = broker
        self._timeout = timeout
        self._texts = texts
        self._held: dict[Wire, list[Group]] = {}
        self._rows = self._bytes = 0
        self._waits = False
        self.largest = largest(broker.max_payload)
        self.rows_a_pack = 1.0
        self._packs = 0

    def add(self, wire: Wire, group: Group, done: PublishDone) -> None:
        """Rows to be published at the end of this turn of the loop, or now where they are many.

        Args:
            wire: the format of the rows.
            group: the rows.
            done: called once, when all are stored or one is not.
        """
        group.done = done
        self._held.setdefault(wire, []).append(group)
        self._rows += len(group.ids)
        self._bytes += group.size
        if self._rows >= MAX_ROWS or self._bytes >= MAX_BYTES:
            self.flush()
        elif not self._waits:
            self._waits = True
            asyncio.get_running_loop().call_soon(self._turned)

    async def store(self, wire: Wire, identity: str, row: bytes) -> None:
        """Return once a row without lineage is stored, with others of this turn.

        Raises:
            PublishError: it was refused, or did not get there in time.
        """
        if self._broker.full:
            await self._broker.room()
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(error: Exception | None, _repeat: bool) -> None:
            if stored.done():
                return  # the caller gave up
            if error is None:
                stored.set_result(None)
            else:
                stored.set_exception(error)

        group = Group("")
        group.add(identity, row)
        self.add(wire, group, done)
        await stored

    def _turned(self) -> None:
        self._waits = False
        self.flush()

    def flush(self) -> None:
        """Publish what was handed in."""
        held, self._held = self._held, {}
        self._rows = self._bytes = 0
        limit = self.largest = largest(self._broker.max_payload)
        for wire, groups in held.items():
            # All are cut before one is published: some are answered at once.
            for pieces in list(_cut(groups, limit)):
                self._publish(wire, pieces)

    def _publish(self, wire: Wire, pieces: Sequence[Piece]) -> None:
        try:
            header, payload = self._made(wire, pieces)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody must wait for ever
            for group, _, _ in pieces:
                group.stored(error, False)
            return
        answered = partial(self._answered, wire, pieces)
        self._broker.publish(self._subject, header, payload, answered, timeout=self._timeout)

    def _made(self, wire: Wire, pieces: Sequence[Piece]) -> tuple[bytes, bytes]:
        """Header block and payload of a pack."""
        ids: bytes | list[str]
        if self._texts:
            ids = [one for group, a, b in pieces for one in group.ids[a:b]]
            said = "\n".join(ids).encode()
        else:
            said = ids = bytes.fromhex("".join("".join(group.ids[a:b]) for group, a, b in pieces))
        lineages = Lineages(
            ids,
            [stop - start for _, start, stop in pieces],
            _columns([group.lines for group, _, _ in pieces]),
        )
        rows = [row for group, start, stop in pieces for row in group.rows[start:stop]]
        self._packs += 1
        self.rows_a_pack += (len(rows) - self.rows_a_pack) * max(1 / self._packs, _NEWEST)
        # Of the rows' identities: the same pack sent again is dropped as a repeat.
        identity = f"pack:{blake2b(said, digest_size=16).hexdigest()}"
        return output_block(self._heads[wire], identity, ""), write(lineages, rows, wire)

    def _answered(
        self, wire: Wire, pieces: Sequence[Piece], error: Exception | None, repeat: bool
    ) -> None:
        if isinstance(error, PayloadTooLarge):
            halves = _halves(pieces)
            if len(halves) > 1:  # a stream may take less than its server
                for half in halves:
                    self._publish(wire, half)
                return
        for group, _, _ in pieces:
            group.stored(error, repeat)


def _cut(groups: Sequence[Group], limit: int) -> Iterator[list[Piece]]:
    """Packs of at most so many bytes, and MAX_ROWS rows."""
    pieces: list[Piece] = []
    size = count = 0
    for group in groups:
        if size + group.size <= limit and count + len(group.ids) <= MAX_ROWS:  # nearly always
            _put(pieces, group, 0, len(group.ids))
            size, count = size + group.size, count + len(group.ids)
            continue
        start = 0
        size += len(group.lines)
        for at, row in enumerate(group.rows):
            taken = len(row) + _PER_ROW
            if (size + taken > limit or count == MAX_ROWS) and (pieces or at > start):
                if at > start:
                    _put(pieces, group, start, at)
                yield pieces
                pieces, start, size, count = [], at, len(group.lines), 0
            size, count = size + taken, count + 1
        _put(pieces, group, start, len(group.rows))
    if pieces:
        yield pieces


def _put(pieces: list[Piece], group: Group, start: int, stop: int) -> None:
    pieces.append((group, start, stop))
    group.left += 1


def _halves(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Two packs of the rows of one; that one where it is a single row."""
    left = sum(stop - start for _, start, stop in pieces) // 2
    if not left:
        return [list(pieces)]
    halves: list[list[Piece]] = [[], []]
    for group, start, stop in pieces:
        middle = min(stop, start + left)
        left -= middle - start
        if start < middle:
            halves[0].append((group, start, middle))
        if middle < stop:
            halves[1].append((group, middle, stop))
        group.left += start < middle < stop
    return halves


def _columns(lineages: Sequence[str]) -> dict[str, list[str]]:
    """Header lines of each lineage as values by name."""
    columns: dict[str, list[str]] = {}
    for at, lines in enumerate(lineages):
        for line in lines.split("\r\n"):
            name, colon, value = line.partition(": ")
            if colon:
                column = columns.get(name)
                if column is None:
                    column = columns[name] = [""] * len(lineages)
                column[at] = value
    return columns
