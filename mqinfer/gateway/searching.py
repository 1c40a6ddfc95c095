"""Searching: `POST /v1/indexes/{name}/search`, and which indexes there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mqinfer.errors import SearchError
from mqinfer.gateway import answers, bodies, validation, views
from mqinfer.gateway.parts import COUNT, TEXT, json, parameter, problems
from mqinfer.gateway.problems import Fault, Problem, invalid
from mqinfer.gateway.schemas import Schema, ref

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from mqinfer.app import App
    from mqinfer.gateway.site import Site
    from mqinfer.gateway.tenants import Tenant

_TIMEOUT = 5.0  # seconds for all shards to answer


class Search(msgspec.Struct, forbid_unknown_fields=True):
    """What is searched for; as of `Client.search`."""

    vector: list[float] | dict[str, list[float]]
    k: int = 10
    where: dict[str, Any] | None = None
    weights: dict[str, float] | None = None
    generations: dict[str, int] | None = None


class Searching:
    """What searches.

    Args:
        site: that it belongs to.
    """

    def __init__(self, site: Site):
        self._site = site

    async def search(self, request: Request, tenant: Tenant) -> Response:
        """`POST /v1/indexes/{name}/search`."""
        del tenant  # all who may ask may search
        site = self._site
        index = site.app.indexes.get(request.path_params["name"])
        if index is None or site.searching is None:
            known = ", ".join(site.app.indexes) or "none"
            raise Problem(
                404,
                "unknown",
                f"there is no such index; there are: {known}",
                headers={"connection": "close"},
            )
        with site.room.share() as take:
            body = await bodies.whole(request, site.options.max_body, take)
            validation.json(body)  # refuses what is no JSON
            try:
                asked = msgspec.json.decode(body, type=Search)
            except msgspec.ValidationError as error:
                raise invalid([Fault("", str(error))]) from None
        try:
            hits = await site.searching.search(
                index,
                asked.vector,
                asked.k,
                where=asked.where,
                weights=asked.weights,
                generations=asked.generations,
                timeout=min(_TIMEOUT, site.options.max_wait),
            )
        except SearchError as error:
            raise invalid([Fault("", str(error))]) from None
        told = {
            "hits": [
                {"key": one.key, "score": one.score, "scores": one.scores, "values": one.values}
                for one in hits
            ],
            "shards": hits.shards,
            "missing": hits.missing,
            "generations": hits.generations,
        }
        return answers.json(views.encode(told))


def listed(app: App) -> dict[str, Any]:
    """The indexes of an app, as `GET /v1/indexes` tells of them."""
    return {
        "indexes": [
            {
                "name": one.name,
                "models": list(one.models),
                "filters": list(one.filters),
                "metric": one.parameters.metric,
                "links": {"search": f"/v1/indexes/{one.name}/search"},
            }
            for one in app.indexes.values()
        ]
    }


def paths(app: App) -> dict[str, Any]:
    """What the description says of them; nothing where there are none."""
    if not app.indexes:
        return {}
    vector: Schema = {"type": "array", "items": {"type": "number"}}
    name = parameter("name", "path", TEXT, "Of the index.", required=True)
    body: Schema = {
        "type": "object",
        "properties": {
            "vector": {
                "description": "One, or one of each model by its name.",
                "anyOf": [vector, {"type": "object", "additionalProperties": vector}],
            },
            "k": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 10},
            "where": {
                "type": ["object", "null"],
                "description": "Field: its value, a list of which it has one, or operators "
                "(eq, ne, in, gt, ge, lt, le).",
            },
            "weights": _of_models({"type": "number", "minimum": 0}),
            "generations": _of_models({"type": "integer"}),
        },
        "required": ["vector"],
        "additionalProperties": False,
    }
    return {
        "/v1/indexes": {
            "get": {
                "operationId": "indexes",
                "summary": "What may be searched",
                "tags": ["indexes"],
                "responses": {"200": json("All indexes.", {"type": "object"}), **problems(401)},
            }
        },
        "/v1/indexes/{name}/search": {
            "parameters": [name],
            "post": {
                "operationId": "search",
                "summary": "The nearest keys",
                "tags": ["indexes"],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": body}},
                },
                "responses": {
                    "200": json("Nearest first.", ref("mqinfer.Hits")),
                    **problems(400, 401, 404, 408, 413, 422, 503),
                },
            },
        },
    }


def schemas(app: App) -> dict[str, Schema]:
    """The schemas of what is told; none where there are no indexes."""
    if not app.indexes:
        return {}
    hit: Schema = {
        "type": "object",
        "properties": {
            "key": {"type": ["string", "integer"]},
            "score": {"type": "number"},
            "scores": {"type": "object", "additionalProperties": {"type": "number"}},
            "values": {"type": "object"},
        },
        "required": ["key", "score", "scores", "values"],
    }
    return {
        "mqinfer.Hits": {
            "title": "Hits",
            "type": "object",
            "properties": {
                "hits": {"type": "array", "items": hit},
                "shards": {
                    **TEXT,
                    "description": "That answered, of how many.",
                    "examples": ["2/2"],
                },
                "missing": {
                    "type": "array",
                    "items": TEXT,
                    "description": "Shards that did not: there may be nearer keys.",
                },
                "generations": {"type": "object", "additionalProperties": COUNT},
            },
            "required": ["hits", "shards", "missing", "generations"],
        }
    }


def _of_models(schema: Schema) -> Schema:
    return {"type": ["object", "null"], "additionalProperties": schema}
