"""Rows: vectors with their keys, by slot: a frozen graph, and all that came since, exactly.

One thread appends and takes out; any number search at the same time, each over what there was when
it began. A vector never changes its place: a new one of its key gets another slot, and its own is
no longer alive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from mqinfer.hits import Key, Plain
from mqinfer.index import Parameters
from mqinfer.search.columns import Bits, Column, Where
from mqinfer.search.graph import Graph
from mqinfer.search.growing import Growing
from mqinfer.search.vectors import Floats, scores

_BLOCK = 20_000  # vectors of a graph that are read at a time


class Near(msgspec.Struct, frozen=True):
    """A key that was found.

    Attributes:
        key: whose vector it is.
        score: how near; the greater the nearer.
        values: of the fields that a search may filter by.
    """

    key: Key
    score: float
    values: tuple[Plain, ...] = ()


class Rows:
    """Vectors of a shard.

    Args:
        parameters: of the generation.
        dimensions: of the vectors.
        names: of the columns.
    """

    def __init__(self, parameters: Parameters, dimensions: int, names: Iterable[str] = ()):
        self.parameters = parameters
        self.dimensions = dimensions
        self.keys: list[Key] = []
        self.versions = Growing(np.int64)
        self.alive = Growing(np.bool_)
        self.columns = {name: Column() for name in names}
        self.graph: Graph | None = None
        self.frozen = 0  # slots of the graph, which are the first ones
        self.tail = Growing(np.float32, width=dimensions)
        self.living = 0

    @property
    def count(self) -> int:
        """Slots."""
        return len(self.keys)

    @property
    def nbytes(self) -> int:
        """Bytes that the vectors take, about."""
        return self.tail.nbytes + (0 if self.graph is None else self.graph.nbytes)

    # --- the thread that changes it -------------------------------------------------------------

    def add(self, key: Key, version: int, vector: Floats, values: Sequence[Plain]) -> int:
        """Append a vector; its slot."""
        self.tail.add(vector)
        for column, value in zip(self.columns.values(), values, strict=True):
            column.add(value)
        self.versions.add(version)
        self.alive.add(True)
        self.living += 1
        self.keys.append(key)  # last: as many slots as keys are there
        return len(self.keys) - 1

    def take_out(self, slot: int) -> None:
        """Let a slot be passed over from now on."""
        self.alive.upto(slot + 1)[slot] = False
        self.living -= 1

    # --- any thread -----------------------------------------------------------------------------

    def allowed(self, where: Where, count: int) -> Bits:
        """Which of the first `count` slots a search may find."""
        found: Bits = self.alive.upto(count).copy()
        for name, conditions in where.items():
            found &= self.columns[name].allowed(conditions, count)
        return found

    def search(self, queries: Floats, k: int, where: Where) -> list[list[Near]]:
        """The nearest of each query, nearest first; those that are equally near by their keys.

        Args:
            queries: as rows.
            k: the most for each.
            where: conditions that all must fulfil.
        """
        count = self.count
        allowed = self.allowed(where, count)
        frozen = min(self.frozen, count)
        found: list[list[tuple[float, int]]] = [[] for _ in queries]
        slots = np.flatnonzero(allowed[frozen:])
        if slots.size:
            tail = self.tail.upto(count - frozen)
            own = tail if slots.size == len(tail) else tail[slots]
            for row, near in enumerate(scores(queries, own, self.parameters.metric)):
                found[row] += _best(near, slots + frozen, k)
        if self.graph is not None and (there := int(allowed[:frozen].sum())):
            for row, some in enumerate(self._of_graph(queries, k, allowed[:frozen], there)):
                found[row] += some
        return [self._told(some, k) for some in found]

    def _of_graph(
        self, queries: Floats, k: int, allowed: Bits, there: int
    ) -> list[list[tuple[float, int]]]:
        """The best of the graph; where few of it may be found, by looking at each of these."""
        assert self.graph is not None
        size, wanted = len(allowed), min(k, there)
        fetch = min(size, wanted + min(size - there, wanted))
        while fetch < size // 8 and there > size // 16:
            numbers, near = self.graph.nearest(queries, fetch)
            good = (numbers >= 0) & allowed[numbers]
            if (good.sum(axis=1) >= wanted).all():
                return [_best(near[row][good[row]], numbers[row][good[row]], k)
                        for row in range(len(queries))]  # fmt: skip
            fetch *= 4
        found: list[list[tuple[float, int]]] = [[] for _ in queries]
        slots = np.flatnonzero(allowed)
        for at in range(0, len(slots), _BLOCK):
            block = slots[at : at + _BLOCK]
            vectors = self.graph.vectors(block)
            for row, each in enumerate(scores(queries, vectors, self.parameters.metric)):
                found[row] = _cut([*found[row], *_best(each, block, k)], k)
        return found

    def _told(self, found: list[tuple[float, int]], k: int) -> list[Near]:
        ranked = sorted((-score, str(self.keys[slot]), slot) for score, slot in found)[:k]
        return [
            Near(self.keys[slot], -score, tuple(c.of(slot) for c in self.columns.values()))
            for score, _, slot in ranked
        ]

    def vectors(self, slots: NDArray[np.intp]) -> Floats:
        """The vectors of slots, ascending ones."""
        split = int(np.searchsorted(slots, self.frozen))
        late: Floats = self.tail.upto(self.count - self.frozen)[slots[split:] - self.frozen]
        if self.graph is None:
            return late
        return np.vstack([self.graph.vectors(slots[:split]), late])

    def compacted(self, slots: NDArray[np.intp]) -> Rows:
        """These slots as rows of their own, with a graph where they are many enough for one.

        Takes long, and belongs into a thread.
        """
        made = Rows(self.parameters, self.dimensions)
        made.keys = [self.keys[slot] for slot in slots]
        made.versions = Growing(np.int64, self.versions.upto(self.count)[slots])
        made.alive = Growing(np.bool_, np.ones(len(slots), np.bool_))
        made.columns = {name: column.only(slots) for name, column in self.columns.items()}
        made.living = len(slots)
        if len(slots) > self.parameters.exact_below:
            # As f32 all of them are twice as large as both graphs, so never at the same time.
            starts = range(0, len(slots), _BLOCK)
            blocks = (self.vectors(slots[at : at + _BLOCK]) for at in starts)
            made.graph = Graph.built(self.parameters, self.dimensions, blocks)
            made.frozen = len(slots)
        else:
            made.tail = Growing(np.float32, self.vectors(slots), self.dimensions)
        return made


def places(rows: Rows) -> Mapping[Key, int]:
    """The slot of each key."""
    alive = rows.alive.upto(rows.count)
    return {rows.keys[slot]: int(slot) for slot in np.flatnonzero(alive)}


def _best(near: Floats, slots: NDArray[np.intp], k: int) -> list[tuple[float, int]]:
    """The k greatest, and all that are as great as the last of them: which of these, keys say."""
    if len(near) > k:
        least = np.partition(near, len(near) - k)[len(near) - k]
        chosen = np.flatnonzero(near >= least)
        near, slots = near[chosen], slots[chosen]
    return list(zip(near.tolist(), slots.tolist(), strict=True))


def _cut(found: list[tuple[float, int]], k: int) -> list[tuple[float, int]]:
    """As `_best`, of pairs."""
    if len(found) <= k:
        return found
    least = sorted(score for score, _ in found)[-k]
    return [one for one in found if one[0] >= least]
