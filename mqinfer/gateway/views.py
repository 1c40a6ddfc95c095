"""Views: a request as clients see it. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
from msgspec import Raw

from mqinfer.identity import parse_models
from mqinfer.requests.listing import plain

if TYPE_CHECKING:
    from mqinfer.requests.state import Answer, Problem, State

REQUESTS = "/v1/requests/"
encode = msgspec.json.Encoder(enc_hook=str).encode


def status(state: State, progress: tuple[int, int] | None) -> str:
    """How a request stands: one that is open is "queued" until something came of it."""
    if state.open:
        return "queued" if progress is None else "running"
    return state.status


def summary(state: State, progress: tuple[int, int] | None, token: str = "") -> dict[str, Any]:
    """A request, without its answers.

    Args:
        state: of the request.
        progress: messages that came of it and are settled, and those that are open; None where
            nothing came of it yet.
        token: that opens its events where no header can be sent.
    """
    where = REQUESTS + quote(state.id, safe="")
    told: dict[str, Any] = {
        "id": state.id,
        "endpoint": state.endpoint,
        "status": status(state, progress),
        "created": moment(state.created),
        "deadline": moment(state.deadline),
        "expires": moment(state.expires),
    }
    if not state.open:
        told["ended"] = moment(state.ended)
    elif progress is not None:
        told["progress"] = {"settled": progress[0], "open": progress[1]}
    told["links"] = {
        "self": where,
        "result": f"{where}/result",
        "events": f"{where}/events" + (f"?token={token}" if token else ""),
        "cancel": f"{where}/cancel",
    }
    return told


def result(
    state: State, answers: Sequence[Answer], progress: tuple[int, int] | None
) -> dict[str, Any]:
    """What came of a request: all of it, or so far."""
    told: dict[str, Any] = {
        "id": state.id,
        "endpoint": state.endpoint,
        "status": status(state, progress),
        "answers": [answer(one) for one in answers],
        "errors": [problem(one) for one in state.errors],
    }
    if state.models:
        told["models"] = parse_models(state.models)
    return told


def answer(one: Answer) -> dict[str, Any]:
    """One answer."""
    return {"id": one.id, "type": one.type, "data": data(one)}


def problem(one: Problem) -> dict[str, str]:
    """One error."""
    told = {"kind": one.kind, "reason": one.reason}
    return {**told, "letter": one.letter} if one.letter else told


def data(one: Answer) -> Any:
    """An answer's payload as JSON."""
    if one.body.content_type == "application/json":
        return Raw(one.body.payload)
    try:
        return plain(one)
    except msgspec.MsgspecError:
        return {"base64": one.body.payload}


def moment(seconds: float) -> str:
    """A time, in seconds since the epoch, as RFC 3339."""
    found = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return found.isoformat(timespec="milliseconds").replace("+00:00", "Z")
