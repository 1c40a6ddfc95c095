"""Schemas: the types of an app's endpoints as JSON Schema 2020-12, to read and to validate with."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mqinfer.blob import Blob

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.endpoint import Endpoint

REF: Final = "#/components/schemas/"
Schema = dict[str, Any]

# Names of our own have a dot, which no class has.
OURS: Final[Mapping[str, Schema]] = {
    "mqinfer.Blob": {
        "title": "Blob",
        "description": "A picture or another file: the path that POST /v1/files gave, its bytes, a "
        "part of this multipart body by its name, or an address that this server fetches from.",
        "anyOf": [
            {"type": "string", "minLength": 1, "maxLength": 1024, "examples": ["uploads/a.png"]},
            {
                "type": "object",
                "properties": {
                    "base64": {"type": "string", "contentEncoding": "base64"},
                    "part": {"type": "string"},
                    "url": {"type": "string"},
                },
                "minProperties": 1,
                "maxProperties": 1,
                "additionalProperties": False,
            },
        ],
    },
    "mqinfer.Array": {
        "title": "Array",
        "description": "Numbers: a nested list, or the bytes of an array with its type and shape.",
        "anyOf": [
            {"type": "array"},
            {
                "type": "object",
                "properties": {
                    "dtype": {"type": "string", "examples": ["<f4"]},
                    "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                    "base64": {"type": "string", "contentEncoding": "base64"},
                },
                "required": ["dtype", "shape", "base64"],
            },
        ],
    },
    "mqinfer.Webhook": {
        "title": "Webhook",
        "type": "object",
        "description": "Where to send the answer as well, signed as Standard Webhooks has it.",
        "properties": {"url": {"type": "string", "maxLength": 2000}},
        "required": ["url"],
        "additionalProperties": False,
    },
}


def ref(name: str) -> Schema:
    """A reference to a component."""
    return {"$ref": REF + name}


def components(app: App) -> tuple[dict[type, Schema], dict[str, Schema]]:
    """What leads to the schema of each type of an endpoint, and all schemas by name."""
    kinds: dict[type, None] = {}
    for endpoint in app.endpoints.values():
        kinds.update(dict.fromkeys((endpoint.reads, *endpoint.answers)))
    try:
        found, named = msgspec.json.schema_components(
            tuple(kinds), schema_hook=_of_ours, ref_template=REF + "{name}"
        )
    except Exception:  # noqa: BLE001 - whatever an annotation makes msgspec raise
        # A type that cannot be told says so where it is decoded; here anything passes.
        return {kind: {} for kind in kinds}, dict(OURS)
    return dict(zip(kinds, found, strict=True)), {**named, **OURS}


def asked(endpoint: Endpoint[Any], refs: Mapping[type, Schema], *, webhooks: bool = True) -> Schema:
    """The schema of the body that asks an endpoint.

    Args:
        endpoint: that is asked.
        refs: of `components`.
        webhooks: whether addresses are told of the end.
    """
    webhook = {"webhook": {"anyOf": [ref("mqinfer.Webhook"), {"type": "null"}]}}
    return {
        "type": "object",
        "properties": {"input": refs[endpoint.reads], **(webhook if webhooks else {})},
        "required": ["input"],
        "additionalProperties": False,
    }


def _of_ours(kind: type) -> Schema:
    if kind is Blob:
        return ref("mqinfer.Blob")
    numpy = sys.modules.get("numpy")  # whoever annotates with it has imported it
    if numpy is not None and isinstance(kind, type) and issubclass(kind, numpy.ndarray):
        return ref("mqinfer.Array")
    return {}
