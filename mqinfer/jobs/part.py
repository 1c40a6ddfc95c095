"""Part: what came of a chunk, a line of JSON for each row, in the order of the rows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from msgspec import Struct

from mqinfer.completion.progress import COMPLETE
from mqinfer.jobs.chunk import Failure, Item
from mqinfer.jobs.state import Counts
from mqinfer.requests.state import INTERNAL, Answer, answer, problem

if TYPE_CHECKING:
    from mqinfer.completion.assemble import Died, Tale
    from mqinfer.jobs.state import State

ENDED: Final = "the job ended before what came of this was done"
TOO_MUCH: Final = "more came of the rows of this chunk than one can have: submit with fewer a chunk"


class Line(Struct, frozen=True, omit_defaults=True):
    """One row.

    Attributes:
        row: its number, from 1.
        custom_id: as whoever submitted it calls it.
        status: "succeeded"; "partial": something that came of it died, and there are answers; or
            "failed".
        answers: in the order of their causes.
        errors: in that order, too.
    """

    row: int
    status: Literal["succeeded", "partial", "failed"]
    custom_id: str = ""
    answers: tuple[Answer, ...] = ()
    errors: tuple[Failure, ...] = ()

    @property
    def again(self) -> bool:
        """Whether it makes sense to try it again."""
        return any(error.kind != "invalid" for error in self.errors)


_encode = msgspec.json.Encoder()
_decode = msgspec.json.Decoder(Line).decode


def encode(lines: Iterable[Line]) -> bytes:
    """The bytes of a part."""
    return _encode.encode_lines(lines)


def decode(data: bytes) -> list[Line]:
    """The inverse of `encode`."""
    return [_decode(line) for line in data.splitlines() if line]


def due(items: Iterable[Item], before: Sequence[Line] | None) -> list[Item]:
    """The items of a chunk that run in a round, bad rows among them in the first.

    Args:
        items: of the chunk.
        before: what came of it in rounds before; None where it never ran.
    """
    if before is None:
        return list(items)
    rows = {line.row for line in before if line.again}
    return [item for item in items if item.row in rows]


def lines_of(items: Sequence[Item], told: Tale, state: State) -> list[Line]:
    """What came of the items that ran, a line each.

    Args:
        items: that ran, whose places are the numbers of the chunk's outputs.
        told: of the chunk.
        state: of the job.
    """
    answers: dict[int, list[Answer]] = {}
    errors: dict[int, list[Failure]] = {}
    for found, cause in zip(told.outputs, told.causes, strict=True):
        answers.setdefault(cause, []).append(answer(found.id, found.subject, found.payload))
    for died, cause in zip(told.died, told.died_of, strict=True):
        errors.setdefault(cause, []).append(_failure(died))
    lines = []
    for place, item in enumerate(items):
        if item.failure is not None:
            lines.append(_line(item, (), (item.failure,)))
            continue
        # Where nobody has told of the chunk itself, nothing is known of any.
        if told.how != COMPLETE and (told.first is None or place in told.left):
            errors.setdefault(place, []).append(_unfinished(told.how, state))
        lines.append(_line(item, answers.get(place, ()), errors.get(place, ())))
    return lines


def merged(before: Sequence[Line], after: Sequence[Line]) -> list[Line]:
    """The newest line of each row, in the order of the rows."""
    found = {line.row: line for line in (*before, *after)}
    return [found[row] for row in sorted(found)]


def counts_of(lines: Iterable[Line]) -> Counts:
    """How many rows ended how."""
    ends = [line.status for line in lines]
    return Counts(ends.count("succeeded"), ends.count("partial"), ends.count("failed"))


def _line(item: Item, answers: Sequence[Answer], errors: Sequence[Failure]) -> Line:
    status: Literal["succeeded", "partial", "failed"]
    status = "succeeded" if not errors else "partial" if answers else "failed"
    return Line(item.row, status, item.custom_id, tuple(answers), tuple(errors))


def _failure(died: Died) -> Failure:
    if died.kind == "canceled":
        return Failure("canceled", ENDED)
    if died.kind == "expired":
        return Failure("expired", ENDED)
    found = problem(died)
    return Failure(found.kind, found.reason, found.letter)


def _unfinished(how: str, state: State) -> Failure:
    if state.stopping is None:
        return Failure("internal", TOO_MUCH if how != COMPLETE else INTERNAL)
    return Failure("expired" if state.stopping == "expired" else "canceled", ENDED)
