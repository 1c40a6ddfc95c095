"""Parts: what the descriptions of all addresses are made of."""

from __future__ import annotations

from typing import Any, Final

from mqinfer.gateway.forms import NAME, PARTS
from mqinfer.gateway.schemas import Schema, ref

TEXT: Final[Schema] = {"type": "string"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
MOMENT: Final[Schema] = {"type": "string", "format": "date-time"}
KEY: Final[Schema] = {"type": "string", "pattern": "^[!-~]{1,255}$"}
_NAMES: Final[Schema] = {"minLength": 1, "maxLength": NAME}
TELLS: Final = {
    400: "The request is malformed.",
    401: "The key is missing, or nobody's.",
    404: "There is none such: it never was, its answer is kept no more, or it is somebody else's.",
    408: "The body came too slowly.",
    409: "It has ended, and does not change any more.",
    413: "The body is too large.",
    415: "The body is neither JSON nor multipart/form-data.",
    416: "The file has no such bytes; Content-Range says how many it has.",
    422: "The body is not what the endpoint wants; every error has a pointer. Or the "
    "Idempotency-Key was used for something else.",
    429: "Too much is under way; Retry-After says when there will be room.",
    503: "What is needed does not answer; Retry-After says when to ask again.",
}


def parameter(
    name: str, place: str, schema: Schema, text: str, *, required: bool = False
) -> dict[str, Any]:
    """A parameter of a header, a query or a path."""
    return {"name": name, "in": place, "schema": schema, "description": text, "required": required}


def wait() -> dict[str, Any]:
    """The preference to wait."""
    schema = {**TEXT, "examples": ["wait=10"]}
    return parameter("Prefer", "header", schema, "`wait=SECONDS`: wait so long for the end.")


def accepted() -> dict[str, Any]:
    """The headers of what is accepted."""
    return {
        "Location": header(TEXT, "Of the request."),
        "ETag": header(TEXT, "Of this state."),
        "Idempotent-Replayed": header(TEXT, "`true`: its key was used before, for the same."),
    }


def links(*operations: str) -> dict[str, Any]:
    """What may be done with what is accepted, by its id."""
    return {
        one: {"operationId": one, "parameters": {"id": "$response.body#/id"}} for one in operations
    }


def last_event(pattern: str) -> dict[str, Any]:
    """The header that says how far a client has come; an empty one says nothing."""
    schema = {**TEXT, "pattern": f"^({pattern})?$"}
    return parameter("Last-Event-ID", "header", schema, "Go on behind this event.")


def header(schema: Schema, text: str) -> dict[str, Any]:
    """A header of an answer."""
    return {"schema": schema, "description": text}


def answer(name: str, text: str, headers: dict[str, Any]) -> dict[str, Any]:
    """An answer whose body is a component of ours."""
    return {**json(text, ref(name)), "headers": headers}


def json(text: str, schema: Schema) -> dict[str, Any]:
    """An answer of JSON."""
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def problems(*statuses: int) -> dict[str, Any]:
    """Answers that are problems."""
    return {str(one): {"$ref": f"#/components/responses/{one}"} for one in statuses}


def form(schema: Schema, *, needed: bool) -> dict[str, Any]:
    """A body of parts that asks an endpoint.

    Args:
        schema: of the endpoint's input.
        needed: whether the input has fields that it cannot do without.
    """
    found: Schema = {
        "type": "object",
        "description": "`input` is JSON; each file is the field of its part's name, or where the "
        'input says {"part": name}. Any other part is the field of its name, as text.',
        "properties": {"input": schema},
        "propertyNames": _NAMES,
        "maxProperties": PARTS,
        # Whatever it is, it is a text in the form; but of a list each item would be a part.
        "additionalProperties": {"type": ["string", "number", "boolean", "object", "null"]},
    }
    if needed:
        found["required"] = ["input"]
    return {"schema": found, "encoding": {"input": {"contentType": "application/json"}}}


def files() -> dict[str, Any]:
    """A body of files."""
    file: Schema = {"type": "string", "contentMediaType": "application/octet-stream"}
    some: Schema = {"propertyNames": _NAMES, "minProperties": 1, "maxProperties": PARTS}
    return {"schema": {"type": "object", "additionalProperties": file, **some}}


def events(text: str) -> dict[str, Any]:
    """An answer of server-sent events."""
    names = ["progress", "answer", "end", "reconnect"]
    event: Schema = {
        "type": "object",
        "properties": {"event": {"type": "string", "enum": names}, "id": TEXT, "data": TEXT},
        "required": ["event", "data"],
    }
    return {"description": text, "content": {"text/event-stream": {"schema": event}}}
