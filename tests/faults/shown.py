"""What the tables of a run show, as it is expected."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

from . import odd
from .pipeline import extra_of
from .servers import Observer

_INPUTS = 20_000  # whose rows are read at once


async def rows(observer: Observer, inputs: int) -> AsyncIterator[tuple[Any, ...]]:
    """Every row of every table, as `pipeline.expected` has them."""
    (found,) = await _query(
        observer,
        "SELECT count() AS extra FROM system.columns WHERE database = currentDatabase() "
        "AND table = 'answer' AND name = 'extra'",
    )
    # Without the second version of the code there is no such column.
    extra = "extra" if found["extra"] else "NULL AS extra"
    for where in _ranges(inputs):
        for row in await _query(
            observer, f"SELECT number, index, kind, value, {extra} FROM answer WHERE {where}"
        ):
            shown = ("answer", row["number"], row["index"], row["kind"], row["value"])
            right = row["extra"] in (None, extra_of(row["number"]))
            yield shown if right else (*shown, row["extra"])
        for row in await _query(
            observer, f"SELECT number, speaker, place, text FROM word WHERE {where}"
        ):
            yield ("word", row["number"], row["speaker"], row["place"], row["text"])
        for row in await _query(observer, f"SELECT {odd.COLUMNS} FROM oddity WHERE {where}"):
            yield odd.shown_row(row)


def _ranges(inputs: int) -> list[str]:
    """Conditions that together hold for every number, also one that was never published."""
    starts = range(_INPUTS, inputs, _INPUTS)
    bounds = [None, *starts, None]
    conditions = []
    for low, high in pairwise(bounds):
        parts = [f"number >= {low}"] if low is not None else []
        parts += [f"number < {high}"] if high is not None else []
        conditions.append(" AND ".join(parts) or "true")
    return conditions


async def _query(observer: Observer, sql: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await observer.patiently(lambda: observer.clickhouse.query(sql))
    return found
