"""Page: `/docs`, where a person tries the endpoints; all of it comes from here, nothing from a CDN.

The page is Swagger UI as the package `swagger-ui-bundle` carries it. That version reads OpenAPI
3.0, so it is given the description in that form.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Swagger UI styles elements in place; scripts are files of ours alone.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
FILES = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
TYPES = {".css": "text/css", ".js": "text/javascript", ".png": "image/png"}

HTML = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="icon" href="/docs/favicon-32x32.png">
<div id="page"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/page.js"></script>
</html>
"""
SCRIPT = """SwaggerUIBundle({
  url: "/docs/openapi-3.0.json", dom_id: "#page", deepLinking: true, validatorUrl: null,
  displayRequestDuration: true, defaultModelsExpandDepth: 0,
})
"""


def folder() -> Path:
    """Where the page's files are.

    Raises:
        ImportError: the package is not installed.
    """
    from swagger_ui_bundle import swagger_ui_path

    return Path(str(swagger_ui_path))


def in_3_0(document: Mapping[str, Any]) -> dict[str, Any]:
    """A description of OpenAPI 3.1 in the form of 3.0, as near as it comes."""
    found: dict[str, Any] = _older(document)
    found["openapi"] = "3.0.3"
    found.pop("jsonSchemaDialect", None)
    return found


def _older(value: Any, *, names: bool = False) -> Any:
    """A part of it; with `names` its members are names that people gave, and no keywords."""
    if isinstance(value, list):
        return [_older(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {
        key: _older(one, names=not names and key in ("properties", "schemas", "mapping"))
        for key, one in value.items()
    }
    return found if names else _schema(found)


def _schema(found: dict[str, Any]) -> dict[str, Any]:
    if "const" in found:
        found["enum"] = [found.pop("const")]
    if isinstance(found.get("examples"), list):
        found["example"] = found.pop("examples")[0]
    if isinstance(found.get("prefixItems"), list):
        found.pop("prefixItems")
        found["items"] = {}
    if found.get("items") is False:
        found["items"] = {}
    if found.get("type") == "array":
        found.setdefault("items", {})
    for name in ("exclusiveMinimum", "exclusiveMaximum"):
        if name in found and not isinstance(found[name], bool):
            found[name.replace("exclusiveM", "m")] = found[name]
            found[name] = True
    found.pop("propertyNames", None)
    if isinstance(found.get("type"), list):
        found.pop("type")
    if found.pop("contentEncoding", None) == "base64":
        found["format"] = "byte"
    if found.pop("contentMediaType", "") == "application/octet-stream":
        found["format"] = "binary"
    if found.get("type") == "null":
        return {"nullable": True}
    for word in ("anyOf", "oneOf"):
        parts = found.get(word)
        if isinstance(parts, list) and {"nullable": True} in parts:
            found["nullable"] = True
            found[word] = [one for one in parts if one != {"nullable": True}]
    return found
