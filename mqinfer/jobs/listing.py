"""Listing: jobs and their rows as JSON has them, for people and other programs. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mqinfer.requests.listing import plain

if TYPE_CHECKING:
    from mqinfer.jobs.part import Line
    from mqinfer.jobs.state import State


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
    return found


def plain_line(line: Line) -> dict[str, Any]:
    """What came of a row as JSON has it."""
    found: dict[str, Any] = {"row": line.row}
    if line.custom_id:
        found["custom_id"] = line.custom_id
    return found | {
        "status": line.status,
        "answers": [{"type": one.type, "data": plain(one)} for one in line.answers],
        "errors": msgspec.to_builtins(line.errors),
    }
