"""Catalog: model classes listed in a `models.toml`; each becomes a packed model with an endpoint.

`reading` reads the file, `packing` packs what changed, `types` makes messages of schemas, and
`building` makes the app of it, so that nobody writes code beside the classes.
"""

from mqinfer.catalog.building import app_of

__all__ = ["app_of"]
