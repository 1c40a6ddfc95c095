"""OpenAPI: the description of an app's endpoints for programs (3.1), made from their types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mqinfer.gateway import schemas, searching
from mqinfer.gateway.jobs import describing
from mqinfer.gateway.parts import (
    COUNT,
    KEY,
    MOMENT,
    TELLS,
    TEXT,
    accepted,
    answer,
    events,
    files,
    form,
    header,
    json,
    last_event,
    links,
    parameter,
    problems,
    wait,
)
from mqinfer.gateway.problems import MEDIA_TYPE
from mqinfer.gateway.schemas import Schema, ref
from mqinfer.requests import ended

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mqinfer.app import App
    from mqinfer.endpoint import Endpoint
    from mqinfer.message import Message

_STATUS: Schema = {
    "type": "string",
    "enum": ["queued", "running", "succeeded", "partial", "failed", "canceled", "expired"],
    "description": "The first two are of a request that has not ended. partial: some of what came "
    "of it died, and there are answers. expired: its deadline came first.",
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
        "paths": {
            **_asking(app, refs),
            **_telling(),
            **describing.paths(),
            **searching.paths(app),
            **_others(),
        },
        "components": {
            "schemas": {**named, **_ours(), **describing.schemas(app), **searching.schemas(app)},
            "responses": {
                str(status): {
                    "description": text,
                    "headers": {"Retry-After": header(COUNT, "Seconds.")}
                    if status in (429, 503)
                    else {},
                    "content": {MEDIA_TYPE: {"schema": ref("mqinfer.Problem")}},
                }
                for status, text in TELLS.items()
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
    next_ = links("show", "result", "events", "cancel", "forget")
    for name, endpoint in app.endpoints.items():
        told = (endpoint.reads.__doc__ or "").strip().partition("\n")[0]
        needed = any(field.required for field in msgspec.structs.fields(endpoint.reads))
        body = schemas.asked(endpoint, refs, webhooks=ended.told(app))
        endpoint_answers = [kind.__name__ for kind in endpoint.answers]
        found[f"/v1/endpoints/{name}/requests"] = {
            "post": {
                "operationId": f"ask_{name.replace('-', '_')}",
                "summary": f"Ask {name}",
                "description": told or f"Answers: {', '.join(endpoint_answers)}.",
                "tags": ["endpoints"],
                "parameters": [
                    parameter("Idempotency-Key", "header", KEY,
                               "Asked again under the same key, it is the same request."),
                    wait(),
                ],
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {"schema": body},
                        "multipart/form-data": form(refs[endpoint.reads], needed=needed),
                    },
                },
                "responses": {
                    "200": {
                        **answer("mqinfer.Result", "It ended in time.", accepted()),
                        "links": next_,
                    },
                    "202": {
                        **answer("mqinfer.Request", "It is accepted.", accepted()),
                        "links": next_,
                    },
                    **problems(400, 401, 404, 408, 413, 415, 422, 429, 503),
                },
            }
        }  # fmt: skip
    return found


def _telling() -> dict[str, Any]:
    identity = parameter("id", "path", TEXT, "Of the request.", required=True)
    known = parameter("If-None-Match", "header", TEXT, "The ETag of what is known already.")
    last = last_event(r"[0-9]{1,18}(\.end|\+[!-~]{1,200})?")
    token = parameter("token", "query", TEXT, "Of the link in the request; stands for the key.")
    tag = {"ETag": header(TEXT, "Of this state.")}
    same = {"304": {"description": "It is as it was."}}
    return {
        "/v1/requests/{id}": {
            "parameters": [identity],
            "get": {
                "operationId": "show",
                "summary": "How a request stands",
                "tags": ["requests"],
                "parameters": [known, wait()],
                "responses": {
                    "200": answer("mqinfer.Request", "As it is.", tag),
                    **same,
                    **problems(401, 404, 503),
                },
            },
            "delete": {
                "operationId": "forget",
                "summary": "Cancel a request that is open, and forget it",
                "tags": ["requests"],
                "responses": {"204": {"description": "It is gone."}, **problems(401, 404, 503)},
            },
        },
        "/v1/requests/{id}/result": {
            "parameters": [identity],
            "get": {
                "operationId": "result",
                "summary": "The answers of a request: all, or those that came so far",
                "tags": ["requests"],
                "parameters": [known, wait()],
                "responses": {
                    "200": answer("mqinfer.Result", "It has ended.", tag),
                    "202": answer(
                        "mqinfer.Result", "It has not: these are the answers so far.", tag
                    ),
                    **same,
                    **problems(401, 404, 503),
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
                    "200": events(
                        "Server-sent events. `reconnect` is told when this server stops: come "
                        "again, with the id of the last event."
                    ),
                    "204": {"description": "The last event was known: do not come again."},
                    **problems(400, 401, 404, 503),
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
                    "200": answer("mqinfer.Request", "It is canceled.", {}),
                    **problems(401, 404, 409, 503),
                },
            },
        },
    }


def _others() -> dict[str, Any]:
    name = parameter("name", "path", TEXT, "Of the endpoint.", required=True)
    file: Schema = {
        "type": "object",
        "properties": {"path": TEXT, "size": COUNT},
        "required": ["path", "size"],
    }
    return {
        "/v1/endpoints": {
            "get": {
                "operationId": "endpoints",
                "summary": "What may be asked",
                "tags": ["endpoints"],
                "responses": {
                    "200": json("All endpoints.", {"type": "object"}),
                    **problems(401),
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
                    "200": json("The endpoint.", {"type": "object"}),
                    **problems(401, 404),
                },
            },
        },
        "/v1/webhook-secret": {
            "get": {
                "operationId": "webhook_secret",
                "summary": "What the signatures of webhooks are checked with",
                "tags": ["requests"],
                "responses": {
                    "200": json(
                        "The secret, as libraries of Standard Webhooks take it.",
                        {"type": "object", "properties": {"secret": TEXT}, "required": ["secret"]},
                    ),
                    **problems(401, 404),
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
                    "content": {"multipart/form-data": files()},
                },
                "responses": {
                    "201": json(
                        "Their paths, by the names of the parts.",
                        {
                            "type": "object",
                            "properties": {
                                "files": {"type": "object", "additionalProperties": file}
                            },
                            "required": ["files"],
                        },
                    ),
                    **problems(400, 401, 408, 413, 415, 503),
                },
            }
        },
    }


def _ours() -> dict[str, Schema]:
    links: Schema = {"type": "object", "additionalProperties": TEXT}
    progress: Schema = {
        "type": "object",
        "description": "Messages that came of it so far, by whether they are done.",
        "properties": {"settled": COUNT, "open": COUNT},
        "required": ["settled", "open"],
    }
    return {
        "mqinfer.Request": {
            "title": "Request",
            "type": "object",
            "properties": {
                "id": TEXT, "endpoint": TEXT, "status": _STATUS, "progress": progress,
                "created": MOMENT, "deadline": MOMENT, "ended": MOMENT, "expires": MOMENT,
                "links": links,
            },
            "required": ["id", "endpoint", "status", "created", "deadline", "expires", "links"],
        },
        "mqinfer.Result": {
            "title": "Result",
            "type": "object",
            "properties": {
                "id": TEXT,
                "endpoint": TEXT,
                "status": _STATUS,
                "answers": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"id": TEXT, "type": TEXT, "data": {}},
                        "required": ["id", "type", "data"],
                    },
                },
                "errors": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "kind": {"type": "string", "enum": ["rejected", "invalid", "internal"]},
                            "reason": TEXT,
                            "letter": TEXT,
                        },
                        "required": ["kind", "reason"],
                    },
                },
                "models": {"type": "object", "additionalProperties": TEXT},
                "links": links,
            },
            "required": ["id", "endpoint", "status", "answers", "errors"],
        },
        "mqinfer.Problem": {
            "title": "Problem",
            "description": "RFC 9457.",
            "type": "object",
            "properties": {
                "type": TEXT, "title": TEXT, "status": {"type": "integer"}, "detail": TEXT,
                "errors": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"pointer": TEXT, "detail": TEXT},
                        "required": ["pointer", "detail"],
                    },
                },
            },
            "required": ["type", "title", "status", "detail"],
        },
    }  # fmt: skip
