"""Views: a job as clients see it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mqinfer.gateway.views import moment

if TYPE_CHECKING:
    from mqinfer.jobs.state import State

JOBS = "/v1/jobs/"


def status(state: State) -> str:
    """How a job stands: one that is open is "planning" until its rows are read."""
    if not state.open:
        return state.status
    return "running" if state.unread is None else "planning"


def summary(state: State, token: str = "") -> dict[str, Any]:
    """A job, without what came of its rows.

    Args:
        state: of the job.
        token: that opens its events where no header can be sent.
    """
    where = JOBS + quote(state.id, safe="")
    return {**progress(state), "links": {
        "self": where,
        "events": f"{where}/events" + (f"?token={token}" if token else ""),
        "results": f"{where}/results",
        "errors": f"{where}/errors",
        "cancel": f"{where}/cancel",
        "retry-failed": f"{where}/retry-failed",
    }}  # fmt: skip


def progress(state: State) -> dict[str, Any]:
    """How far a job is."""
    counts = state.counts
    told: dict[str, Any] = {
        "id": state.id,
        "endpoint": state.endpoint,
        "status": status(state),
    }
    if state.open and state.stopping is not None:
        told["stopping"] = state.stopping
    if state.reason:
        told["reason"] = state.reason
    if state.unread is None:
        told["rows"] = state.rows
    told["progress"] = {
        "done": counts.rows,
        "succeeded": counts.succeeded,
        "partial": counts.partial,
        "failed": counts.failed,
    }
    told |= {
        "round": state.round,
        "created": moment(state.created),
        "deadline": moment(state.deadline),
        "expires": moment(state.expires),
    }
    if not state.open:
        told["ended"] = moment(state.ended)
    return told


def place(state: State) -> str:
    """What tells how far a job is from how far it was: the id of an event."""
    counts = state.counts
    flags = ("u" if state.unread is not None else "") + ("s" if state.stopping is not None else "")
    end = "" if state.open else ".end"
    return f"{state.round}.{counts.succeeded}.{counts.partial}.{counts.failed}{flags}{end}"
