"""Listing: jobs and their rows as JSON has them, for people and other programs. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from mqinfer.jobs import places
from mqinfer.jobs.chunk import Failure
from mqinfer.requests.listing import plain

if TYPE_CHECKING:
    from mqinfer.jobs.part import Line
    from mqinfer.jobs.state import State
    from mqinfer.requests.state import Answer

_encode = msgspec.json.Encoder()


def facts(state: State) -> dict[str, Any]:
    """A job as JSON has it."""
    counts = state.counts
    found: dict[str, Any] = {
        "id": state.id,
        "endpoint": state.endpoint,
        "status": state.status,
        "created": state.created,
        "deadline": state.deadline,
        "expires": state.expires,
        "round": state.round,
        "rows": state.rows,
        "done": counts.rows,
        "succeeded": counts.succeeded,
        "partial": counts.partial,
        "failed": counts.failed,
    }
    if state.open and state.stopping is not None:
        found["stopping"] = state.stopping
    if state.ended:
        found["ended"] = state.ended
    if state.written:
        found["files"] = {"results": places.results(state), "errors": places.errors(state)}
    return found


class _Answer(Struct):
    type: str
    data: Any


class _Row(Struct):
    row: int
    custom_id: str
    status: str
    answers: list[_Answer]
    errors: tuple[Failure, ...]


def encode(lines: Iterable[Line]) -> bytes:
    """What came of some rows, as a line of JSON each."""
    return _encode.encode_lines([_row(line) for line in lines])


def _row(line: Line) -> _Row:
    answers = [_Answer(one.type, _data(one)) for one in line.answers]
    return _Row(line.row, line.custom_id, line.status, answers, line.errors)


def _data(answer: Answer) -> Any:
    """As it is, where it is JSON on one line already."""
    found = answer.body.json
    return found if found and b"\n" not in bytes(found) else plain(answer)
