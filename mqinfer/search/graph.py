"""Graph: a frozen base of vectors that is searched by nearness, with usearch's HNSW.

It is built once and never changed: adding to a graph that is searched strands nodes. What was taken
out of it is passed over by whoever asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mqinfer.errors import ConfigurationError
from mqinfer.index import Parameters
from mqinfer.search.vectors import Floats, of_distances

_METRICS = {"cosine": "cos", "ip": "ip", "l2": "l2sq"}


class Graph:
    """A base of vectors, by number from 0.

    Args:
        parameters: of the generation.
        dimensions: of the vectors.

    Raises:
        ConfigurationError: usearch is not installed.
    """

    def __init__(self, parameters: Parameters, dimensions: int):
        try:
            from usearch.index import Index
        except ImportError:
            raise ConfigurationError(
                "more vectors than exact_below= need usearch: pip install 'mqinfer[search]'"
            ) from None
        self._metric = parameters.metric
        self._index: Any = Index(
            ndim=dimensions,
            metric=_METRICS[parameters.metric],
            dtype=parameters.dtype,
            connectivity=parameters.connectivity,
            expansion_add=parameters.expansion_add,
            expansion_search=parameters.expansion_search,
        )

    @classmethod
    def built(cls, parameters: Parameters, dimensions: int, blocks: Iterable[Floats]) -> Graph:
        """A graph of vectors, block by block; takes long, and belongs into a thread."""
        made = cls(parameters, dimensions)
        for block in blocks:
            numbers = np.arange(len(made), len(made) + len(block), dtype=np.uint64)
            made._index.add(numbers, block, threads=1)
        return made

    @classmethod
    def restored(cls, parameters: Parameters, dimensions: int, data: memoryview) -> Graph:
        """A graph that `saved` gave."""
        made = cls(parameters, dimensions)
        made._index.load(bytes(data))
        return made

    def saved(self) -> bytes:
        """All of it; `restored` makes it again."""
        return bytes(self._index.save())

    def __len__(self) -> int:
        return len(self._index)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes, about."""
        return int(self._index.serialized_length)

    def nearest(self, queries: Floats, count: int) -> tuple[NDArray[np.intp], Floats]:
        """Numbers and scores of the nearest, as far as the graph leads there.

        Args:
            queries: as rows.
            count: for each; at most as many as there are.

        Returns:
            A row for each query, -1 where nothing more was found.
        """
        found = self._index.search(queries, count, threads=1)
        numbers = np.full((len(queries), count), -1, dtype=np.intp)
        scores = np.full((len(queries), count), -np.inf, dtype=np.float32)
        keys, distances = np.atleast_2d(found.keys), np.atleast_2d(found.distances)
        width = keys.shape[1]
        counts = getattr(found, "counts", None)
        ends = np.full(len(queries), width) if counts is None else np.asarray(counts)
        beyond = np.arange(width) >= ends[:, None]  # where the arrays have whatever was there
        numbers[:, :width] = np.where(beyond, -1, keys.astype(np.intp))
        scores[:, :width] = of_distances(np.where(beyond, np.inf, distances), self._metric)
        return numbers, scores

    def vectors(self, numbers: NDArray[np.intp]) -> Floats:
        """Vectors as the graph keeps them, as rows."""
        if not len(numbers):
            return np.empty((0, self._index.ndim), np.float32)
        return np.vstack(self._index.get(numbers.astype(np.uint64), dtype="f32"))
