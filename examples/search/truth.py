"""Truth: what a search should find, told from the table: all vectors, compared one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from examples.search.app import pictures

if TYPE_CHECKING:
    from mqinfer import Client
    from mqinfer.ports import Database

Floats = npt.NDArray[np.float32]

_ROWS = """\
SELECT picture_id, name, collection, vector FROM {table}
WHERE _models[{{model:String}}] = {{version:String}} OR empty(vector)
ORDER BY picture_id, _sequence DESC LIMIT 1 BY picture_id"""


@dataclass(frozen=True)
class Vectors:
    """All vectors of a version of a model, as the table has them.

    Attributes:
        ids: of pictures.
        names: with the collection, as `noto/smile`.
        matrix: `[pictures, 1280]`, each of length 1.
    """

    ids: list[str]
    names: list[str]
    matrix: Floats

    def nearest(self, queries: Floats, k: int) -> list[list[str]]:
        """The ids that are nearest to each query `[queries, 1280]`, by the cosine."""
        near = unit(queries) @ self.matrix.T
        return [[self.ids[place] for place in np.argsort(-one, kind="stable")[:k]] for one in near]

    def of(self, names: Sequence[str]) -> Floats:
        """The vectors of pictures, by name."""
        places = {name: place for place, name in enumerate(self.names)}
        return self.matrix[[places[name] for name in names]]


async def vectors(database: Database, model: str, version: str) -> Vectors:
    """What the table has of a version of a model.

    Raises:
        TableError: it cannot be read.
    """
    kind: Any = pictures.models[model]
    query = _ROWS.format(table=kind.__mqinfer__.table)
    rows = await database.query(query, {"model": model, "version": version})
    there = [row for row in rows if len(row["vector"])]
    matrix = unit(np.array([row["vector"] for row in there], np.float32))
    names = [f"{row['collection']}/{row['name']}" for row in there]
    return Vectors([row["picture_id"] for row in there], names, matrix)


def unit(rows: Floats) -> Floats:
    """Rows of length 1."""
    found: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return found


async def recall(client: Client, model: str, truth: Vectors, names: Sequence[str], k: int) -> float:
    """Of the nearest `k` of each of these pictures, how many the index finds, 0 to 1."""
    queries = truth.of(names)
    found = 0
    for query, exact in zip(queries, truth.nearest(queries, k), strict=True):
        hits = await client.search(pictures, {model: query}, k)
        found += len(set(exact) & {str(hit.key) for hit in hits})
    return found / (k * len(names))


async def across(
    client: Client,
    queries: dict[str, Floats],
    names: Sequence[str],
    weights: dict[str, float],
    *,
    k: int = 10,
) -> float:
    """Of pictures by one hand, how often the other hand's one of the same thing is found, 0 to 1.

    Args:
        client: of the app.
        queries: vectors of Twemoji's pictures, by model.
        names: what each shows.
        weights: of the models.
        k: among so many of Noto's it must be.
    """
    found = 0
    for place, name in enumerate(names):
        asked = {model: rows[place] for model, rows in queries.items() if weights.get(model)}
        hits = await client.search(
            pictures, asked, k, where={"collection": "noto"}, weights=weights
        )
        found += any(hit.values["name"] == name for hit in hits)
    return found / len(names)
