"""OpenAPI: the description of an app's endpoints for programs (3.1), made from their types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mqinfer.gateway import schemas
from mqinfer.gateway.problems import MEDIA_TYPE
from mqinfer.gateway.schemas import Schema, ref

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mqinfer.app import App
    from mqinfer.endpoint import Endpoint
    from mqinfer.message import Message

_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_MOMENT: Schema = {"type": "string", "format": "date-time"}
_KEY: Schema = {"type": "string", "minLength": 1, "maxLength": 255}
_STATUS: Schema = {
    "type": "string",
    "enum": ["queued", "running", "succeeded", "partial", "failed", "canceled", "expired"],
    "description": "The first two are of a request that has not ended. partial: some of what came "
    "of it died, and there are answers. expired: its deadline came first.",
}
_TELLS = {
    400: "The request is malformed.",
    401: "The key is missing, or nobody's.",
    404: "There is none such: it never was, its answer is kept no more, or it is somebody else's.",
    408: "The body came too slowly.",
    409: "It has ended, and does not change any more.",
    413: "The body is too large.",
    415: "The body is neither JSON nor multipart/form-data.",
    422: "The body is not what the endpoint wants; every error has a pointer. Or the "
    "Idempotency-Key was used for something else.",
    429: "Too much is under way; Retry-After says when there will be room.",
    503: "What is needed does not answer; Retry-After says when to ask again.",
}


def document(app: App, *, keys: bool = False) -> dict[str, Any]:
    """The description.

    Args:
        app: whose endpoints.
        keys: whether clients need one.
    """
    from mqinfer import __version__

    refs, named = schemas.components(app)
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": app.name,
            "version": __version__,
            "description": "Ask an endpoint, and get an id at once; then status, progress and "
            "answers by it. Every answer is kept for a while; nothing that was accepted is lost.",
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "paths": {**_asking(app, refs), **_telling(), **_others()},
        "components": {
            "schemas": {**named, **_ours()},
            "responses": {
                str(status): {
                    "description": text,
                    "headers": {"Retry-After": _header(_COUNT, "Seconds.")}
                    if status in (429, 503)
                    else {},
                    "content": {MEDIA_TYPE: {"schema": ref("mqinfer.Problem")}},
                }
                for status, text in _TELLS.items()
            },
        },
    }
    if keys:
        found["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        found["security"] = [{"bearer": []}, {"header": []}]
    return found


def of_endpoint(endpoint: Endpoint[Any], refs: Mapping[type[Message], Schema]) -> dict[str, Any]:
    """One endpoint as `GET /v1/endpoints/{name}` tells of it."""
    where = f"/v1/endpoints/{endpoint.name}"
    return {
        "name": endpoint.name,
        "input": refs[endpoint.reads],
        "answers": {kind.__mqinfer__.subject: refs[kind] for kind in endpoint.answers},
        "deadline": endpoint.deadline,
        "keep": endpoint.keep,
        "links": {"self": where, "requests": f"{where}/requests"},
    }


def _asking(app: App, refs: Mapping[type, Schema]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, endpoint in app.endpoints.items():
        told = (endpoint.reads.__doc__ or "").strip().partition("\n")[0]
        endpoint_answers = [kind.__name__ for kind in endpoint.answers]
        found[f"/v1/endpoints/{name}/requests"] = {
            "post": {
                "operationId": f"ask_{name.replace('-', '_')}",
                "summary": f"Ask {name}",
                "description": told or f"Answers: {', '.join(endpoint_answers)}.",
                "tags": ["endpoints"],
                "parameters": [
                    _parameter("Idempotency-Key", "header", _KEY,
                               "Asked again under the same key, it is the same request."),
                    _wait(),
                ],
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {"schema": schemas.asked(endpoint, refs)},
                        "multipart/form-data": {"schema": _form()},
                    },
                },
                "responses": {
                    "200": _answer("mqinfer.Result", "It ended in time.", _accepted()),
                    "202": _answer("mqinfer.Request", "It is accepted.", _accepted()),
                    **_problems(400, 401, 404, 408, 413, 415, 422, 429, 503),
                },
            }
        }  # fmt: skip
    return found


def _telling() -> dict[str, Any]:
    identity = _parameter("id", "path", _TEXT, "Of the request.", required=True)
    known = _parameter("If-None-Match", "header", _TEXT, "The ETag of what is known already.")
    last = _parameter("Last-Event-ID", "header", _TEXT, "Go on behind this event.")
    token = _parameter("token", "query", _TEXT, "Of the link in the request; stands for the key.")
    tag = {"ETag": _header(_TEXT, "Of this state.")}
    same = {"304": {"description": "It is as it was."}}
    return {
        "/v1/requests/{id}": {
            "parameters": [identity],
            "get": {
                "operationId": "show",
                "summary": "How a request stands",
                "tags": ["requests"],
                "parameters": [known, _wait()],
                "responses": {
                    "200": _answer("mqinfer.Request", "As it is.", tag),
                    **same,
                    **_problems(401, 404, 503),
                },
            },
            "delete": {
                "operationId": "forget",
                "summary": "Cancel a request that is open, and forget it",
                "tags": ["requests"],
                "responses": {"204": {"description": "It is gone."}, **_problems(401, 404, 503)},
            },
        },
        "/v1/requests/{id}/result": {
            "parameters": [identity],
            "get": {
                "operationId": "result",
                "summary": "The answers of a request: all, or those that came so far",
                "tags": ["requests"],
                "parameters": [known, _wait()],
                "responses": {
                    "200": _answer("mqinfer.Result", "It has ended.", tag),
                    "202": _answer(
                        "mqinfer.Result", "It has not: these are the answers so far.", tag
                    ),
                    **same,
                    **_problems(401, 404, 503),
                },
            },
        },
        "/v1/requests/{id}/events": {
            "parameters": [identity],
            "get": {
                "operationId": "events",
                "summary": "Progress and answers as they come: progress, answer, end, reconnect",
                "tags": ["requests"],
                "parameters": [last, token],
                "responses": {
                    "200": {
                        "description": "Server-sent events. `reconnect` is told when this server "
                        "stops: come again, with the id of the last event.",
                        "content": {"text/event-stream": {"schema": _TEXT}},
                    },
                    "204": {"description": "The last event was known: do not come again."},
                    **_problems(400, 401, 404, 503),
                },
            },
        },
        "/v1/requests/{id}/cancel": {
            "parameters": [identity],
            "post": {
                "operationId": "cancel",
                "summary": "Cancel a request: the work on it stops",
                "tags": ["requests"],
                "responses": {
                    "200": _answer("mqinfer.Request", "It is canceled.", {}),
                    **_problems(401, 404, 409, 503),
                },
            },
        },
    }


def _others() -> dict[str, Any]:
    name = _parameter("name", "path", _TEXT, "Of the endpoint.", required=True)
    file: Schema = {
        "type": "object",
        "properties": {"path": _TEXT, "size": _COUNT},
        "required": ["path", "size"],
    }
    return {
        "/v1/endpoints": {
            "get": {
                "operationId": "endpoints",
                "summary": "What may be asked",
                "tags": ["endpoints"],
                "responses": {
                    "200": _json("All endpoints.", {"type": "object"}),
                    **_problems(401),
                },
            }
        },
        "/v1/endpoints/{name}": {
            "parameters": [name],
            "get": {
                "operationId": "endpoint",
                "summary": "One endpoint, with its schemas",
                "tags": ["endpoints"],
                "responses": {
                    "200": _json("The endpoint.", {"type": "object"}),
                    **_problems(401, 404),
                },
            },
        },
        "/v1/webhook-secret": {
            "get": {
                "operationId": "webhook_secret",
                "summary": "What the signatures of webhooks are checked with",
                "tags": ["requests"],
                "responses": {
                    "200": _json(
                        "The secret, as libraries of Standard Webhooks take it.",
                        {"type": "object", "properties": {"secret": _TEXT}, "required": ["secret"]},
                    ),
                    **_problems(401, 404),
                },
            }
        },
        "/v1/files": {
            "post": {
                "operationId": "upload",
                "summary": "Store files, to be named by their paths",
                "tags": ["files"],
                "requestBody": {
                    "required": True,
                    "content": {"multipart/form-data": {"schema": _form()}},
                },
                "responses": {
                    "201": _json(
                        "Their paths, by the names of the parts.",
                        {
                            "type": "object",
                            "properties": {
                                "files": {"type": "object", "additionalProperties": file}
                            },
                            "required": ["files"],
                        },
                    ),
                    **_problems(400, 401, 408, 413, 415, 503),
                },
            }
        },
    }


def _ours() -> dict[str, Schema]:
    links: Schema = {"type": "object", "additionalProperties": _TEXT}
    progress: Schema = {
        "type": "object",
        "description": "Messages that came of it so far, by whether they are done.",
        "properties": {"settled": _COUNT, "open": _COUNT},
        "required": ["settled", "open"],
    }
    return {
        "mqinfer.Request": {
            "title": "Request",
            "type": "object",
            "properties": {
                "id": _TEXT, "endpoint": _TEXT, "status": _STATUS, "progress": progress,
                "created": _MOMENT, "deadline": _MOMENT, "ended": _MOMENT, "expires": _MOMENT,
                "links": links,
            },
            "required": ["id", "endpoint", "status", "created", "deadline", "expires", "links"],
        },
        "mqinfer.Result": {
            "title": "Result",
            "type": "object",
            "properties": {
                "id": _TEXT,
                "endpoint": _TEXT,
                "status": _STATUS,
                "answers": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"id": _TEXT, "type": _TEXT, "data": {}},
                        "required": ["id", "type", "data"],
                    },
                },
                "errors": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "kind": {"type": "string", "enum": ["rejected", "invalid", "internal"]},
                            "reason": _TEXT,
                            "letter": _TEXT,
                        },
                        "required": ["kind", "reason"],
                    },
                },
                "models": {"type": "object", "additionalProperties": _TEXT},
                "links": links,
            },
            "required": ["id", "endpoint", "status", "answers", "errors"],
        },
        "mqinfer.Problem": {
            "title": "Problem",
            "description": "RFC 9457.",
            "type": "object",
            "properties": {
                "type": _TEXT, "title": _TEXT, "status": {"type": "integer"}, "detail": _TEXT,
                "errors": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"pointer": _TEXT, "detail": _TEXT},
                        "required": ["pointer", "detail"],
                    },
                },
            },
            "required": ["type", "title", "status", "detail"],
        },
    }  # fmt: skip


def _form() -> Schema:
    return {
        "type": "object",
        "description": "`input` is JSON; each file is the field of its part's name, or where the "
        'input says {"part": name}.',
        "properties": {"input": {"type": "string", "contentMediaType": "application/json"}},
        "additionalProperties": {"type": "string", "contentMediaType": "application/octet-stream"},
    }


def _parameter(
    name: str, place: str, schema: Schema, text: str, *, required: bool = False
) -> dict[str, Any]:
    return {"name": name, "in": place, "schema": schema, "description": text, "required": required}


def _wait() -> dict[str, Any]:
    schema = {**_TEXT, "examples": ["wait=10"]}
    return _parameter("Prefer", "header", schema, "`wait=SECONDS`: wait so long for the end.")


def _accepted() -> dict[str, Any]:
    return {
        "Location": _header(_TEXT, "Of the request."),
        "ETag": _header(_TEXT, "Of this state."),
        "Idempotent-Replayed": _header(_TEXT, "`true`: its key was used before, for the same."),
    }


def _header(schema: Schema, text: str) -> dict[str, Any]:
    return {"schema": schema, "description": text}


def _answer(name: str, text: str, headers: dict[str, Any]) -> dict[str, Any]:
    return {**_json(text, ref(name)), "headers": headers}


def _json(text: str, schema: Schema) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _problems(*statuses: int) -> dict[str, Any]:
    return {str(one): {"$ref": f"#/components/responses/{one}"} for one in statuses}
