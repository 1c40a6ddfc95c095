"""Requests that a server hands over together, run as one batch where they agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Arrays = dict[str, Any]
Outcome = Arrays | Exception


def run_together(
    feeds: Sequence[Outcome],
    run: Callable[[Arrays], Arrays],
    *,
    batched: bool,
    fatal: tuple[type[Exception], ...] = (),
) -> list[Outcome]:
    """The outcome of each request: its own outputs, or its own error.

    Those whose items have equal shapes go in one run; if that fails, one of them is bad, and each
    is run by itself.

    Args:
        feeds: the inputs of each request, or why they cannot be had.
        run: runs the model.
        batched: whether the first side of every array is the batch's.
        fatal: errors after which nothing more is run; they are raised.
    """
    outcomes = list(feeds)
    groups: dict[Any, list[int]] = {}
    for position, feed in enumerate(feeds):
        if not isinstance(feed, Exception):
            groups.setdefault(_signature(position, feed, batched), []).append(position)
    for members in groups.values():
        if len(members) > 1:
            try:
                answers = _joined([feeds[position] for position in members], run)
            except fatal:
                raise
            except Exception:  # noqa: BLE001 - one of them is bad: find out which
                pass
            else:
                for position, answer in zip(members, answers, strict=True):
                    outcomes[position] = answer
                continue
        for position in members:
            try:
                outcomes[position] = run(feeds[position])  # type: ignore[arg-type]
            except fatal:
                raise
            except Exception as error:  # noqa: BLE001 - becomes this request's answer
                outcomes[position] = error
    return outcomes


def _signature(position: int, feed: Arrays, batched: bool) -> object:
    """Equal for requests that may share a run."""
    if not batched or any(array.ndim == 0 for array in feed.values()):
        return position
    if len({array.shape[0] for array in feed.values()}) != 1:
        return position
    return tuple((name, array.dtype.str, array.shape[1:]) for name, array in feed.items())


def _joined(feeds: list[Any], run: Callable[[Arrays], Arrays]) -> list[Arrays]:
    """Run several requests as one batch, and cut the results apart again."""
    names = list(feeds[0])
    batch = {name: np.concatenate([feed[name] for feed in feeds]) for name in names}
    sizes = [feed[names[0]].shape[0] for feed in feeds]
    results = run(batch)
    for name, array in results.items():
        if array.ndim == 0 or array.shape[0] != sum(sizes):
            raise ValueError(f"output {name} has no batch dimension")
    answers, start = [], 0
    for size in sizes:
        answers.append({name: array[start : start + size] for name, array in results.items()})
        start += size
    return answers
