"""Vectors: what can be indexed and searched for, and how near two are. Pure.

All scores are the greater the nearer: the cosine, the inner product, or the square of the Euclidean
distance below zero. They are rounded, so that equal vectors are equally near wherever they lie.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mqinfer.errors import SearchError
from mqinfer.index import Metric

Floats = NDArray[np.float32]
DIGITS = 5  # of a score; f32 sums of a thousand products differ in the seventh


def read(value: Any, metric: Metric, dimensions: int | None, what: str = "the vector") -> Floats:
    """A vector to be compared with others: float32, of length 1 where the metric is the cosine.

    Args:
        value: a list or array of numbers.
        metric: of the index.
        dimensions: that it must have; None is any.
        what: it is, for the text of an error.

    Raises:
        SearchError: it is none, has NaN or an infinity in it, another number of dimensions, or no
            direction.
    """
    try:
        found = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise SearchError(f"{what} is no list of numbers: {error}") from None
    if found.ndim != 1 or not found.size:
        raise SearchError(f"{what} must be one list of numbers, not of shape {found.shape}")
    if dimensions is not None and found.size != dimensions:
        raise SearchError(f"{what} has {found.size} dimensions, and the index has {dimensions}")
    if not np.isfinite(found).all():
        place = int(np.flatnonzero(~np.isfinite(found))[0])
        raise SearchError(f"{what} is {found[place]} at place {place}: numbers only")
    if metric == "cosine":
        # In float64, or the squares of small numbers are 0, and those of large ones infinite.
        length = float(np.linalg.norm(found.astype(np.float64)))
        if not length:
            raise SearchError(f"{what} is all zeros, which has no direction: the cosine needs one")
        found = (found / length).astype(np.float32)
    return found


def scores(queries: Floats, vectors: Floats, metric: Metric) -> Floats:
    """How near each vector is to each query.

    Args:
        queries: as rows.
        vectors: as rows.
        metric: of the index.

    Returns:
        A row for each query.
    """
    dots = queries @ vectors.T
    if metric == "l2":
        own = np.einsum("ij,ij->i", queries, queries)[:, None]
        theirs = np.einsum("ij,ij->i", vectors, vectors)[None, :]
        dots = np.minimum(2 * dots - own - theirs, 0)
    return np.round(dots, DIGITS)


def of_distances(distances: Floats, metric: Metric) -> Floats:
    """Distances that usearch tells, as scores."""
    return np.round(-distances if metric == "l2" else 1 - distances, DIGITS)
