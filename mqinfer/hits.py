"""Hits: what a search found, and whether all was asked. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import overload

Key = str | int
# What a search filters by, as it is kept: times are text that sorts.
Plain = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Hit:
    """A key that was found.

    Attributes:
        key: whose vector is near.
        score: how near, the greater the nearer: the cosine, the inner product, or the square of the
            distance below zero; of several models the mean by their weights.
        scores: by model; a model that has no vector of the key is not there, and counts as 0 in
            `score`.
        values: of the fields that a search may filter by.
    """

    key: Key
    score: float
    scores: Mapping[str, float]
    values: Mapping[str, Plain]


class Hits(Sequence[Hit]):
    """What a search found, nearest first.

    Args:
        found: the hits.
        asked: shards, of all models.
        missing: those that did not answer, as `model/shard`.
        generations: model -> the generation that answered.

    Attributes:
        missing: the same.
        generations: the same.
    """

    def __init__(
        self,
        found: Sequence[Hit],
        asked: int,
        missing: Sequence[str],
        generations: Mapping[str, int],
    ):
        self._found = tuple(found)
        self._asked = asked
        self.missing = tuple(missing)
        self.generations = dict(generations)

    @property
    def complete(self) -> bool:
        """Whether all shards answered; else there may be nearer ones."""
        return not self.missing

    @property
    def shards(self) -> str:
        """How many shards answered, of how many: "2/2"."""
        return f"{self._asked - len(self.missing)}/{self._asked}"

    @overload
    def __getitem__(self, index: int) -> Hit: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Hit]: ...

    def __getitem__(self, index: int | slice) -> Hit | Sequence[Hit]:
        """One of them, or several."""
        return self._found[index]

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        return f"Hits({list(self._found)!r}, shards={self.shards!r})"
