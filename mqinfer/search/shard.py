"""Shard: the newest vector of each key, in memory, and what keeps it quick.

It does not matter in which order, or how often, it is told of a vector: the greatest version of a
key stays. So a stretch of the stream may be read again after a snapshot, and any number of replicas
come to the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mqinfer.errors import SearchError
from mqinfer.hits import Key, Plain
from mqinfer.index import Parameters
from mqinfer.search.columns import Where
from mqinfer.search.rows import Near, Rows, places
from mqinfer.search.vectors import Floats, read, scores

MOST_REFUSED: Final = 1000  # keys whose refusals are kept, the newest


@dataclass(frozen=True, slots=True)
class Renewal:
    """Rows that are to be laid anew.

    Attributes:
        rows: as they are.
        count: slots that there were.
        slots: those of them that were alive.
    """

    rows: Rows
    count: int
    slots: NDArray[np.intp]

    def made(self) -> Rows:
        """The new rows; takes long, and belongs into a thread."""
        return self.rows.compacted(self.slots)


class Shard:
    """Vectors in memory: exact while it is small, else a frozen graph and an exact tail.

    Args:
        parameters: of the generation.
        names: of the columns that are filtered by.

    Attributes:
        rows: all that is searched; others once they are laid anew.
        gone: keys that were taken out -> the version.
        refused: keys whose newest vector cannot be indexed -> the version, and why.
        changes: of all that it was told.
    """

    def __init__(self, parameters: Parameters, names: Iterable[str] = ()):
        self.parameters = parameters
        self.names = tuple(names)
        self.rows: Rows | None = None
        self.gone: dict[Key, int] = {}
        self.refused: dict[Key, tuple[int, str]] = {}
        self.changes = 0
        self._places: dict[Key, int] = {}

    def __len__(self) -> int:
        return 0 if self.rows is None else self.rows.living

    @property
    def dimensions(self) -> int | None:
        """Of its vectors; None as long as there was none."""
        return None if self.rows is None else self.rows.dimensions

    # --- what changes it ------------------------------------------------------------------------

    def version(self, key: Key) -> int:
        """The version of what is known of a key; -1 is nothing."""
        slot = self._places.get(key)
        if slot is not None and self.rows is not None:
            return int(self.rows.versions.upto(slot + 1)[slot])
        return self.gone.get(key, -1)

    def add(self, key: Key, version: int, vector: Any, values: Sequence[Plain] = ()) -> bool:
        """Let a key have this vector, unless it has a later one; whether it has.

        Raises:
            SearchError: it cannot be indexed; what the key had before stays.
        """
        if version <= self.version(key):
            return False
        try:
            found = read(vector, self.parameters.metric, self.dimensions)
        except SearchError as error:
            self._refuse(key, version, str(error))
            raise
        if self.rows is None:
            self.rows = Rows(self.parameters, found.size, self.names)
        self._out(key)
        self._places[key] = self.rows.add(key, version, found, values)
        self.gone.pop(key, None)
        self._heal(key, version)
        self.changes += 1
        return True

    def remove(self, key: Key, version: int) -> bool:
        """Take a key out, unless what it has is later; whether it is out."""
        if version <= self.version(key):
            return False
        self._out(key)
        self.gone[key] = version
        self._heal(key, version)
        self.changes += 1
        return True

    def forget(self, upto: int) -> None:
        """Forget keys that were taken out, where nothing of so early a version comes any more."""
        self.gone = {key: version for key, version in self.gone.items() if version > upto}

    def _out(self, key: Key) -> None:
        slot = self._places.pop(key, None)
        if slot is not None and self.rows is not None:
            self.rows.take_out(slot)

    def _refuse(self, key: Key, version: int, why: str) -> None:
        if version > self.refused.get(key, (-1, ""))[0]:
            self.refused.pop(key, None)
            self.refused[key] = version, why
            self.changes += 1
            if len(self.refused) > MOST_REFUSED:
                del self.refused[next(iter(self.refused))]

    def _heal(self, key: Key, version: int) -> None:
        if self.refused.get(key, (version, ""))[0] < version:
            del self.refused[key]

    # --- laying it anew -------------------------------------------------------------------------

    def renewal(self) -> Renewal | None:
        """What is to be laid anew, since searches are slower than they need be; None: nothing."""
        rows = self.rows
        if rows is None:
            return None
        exact, dead = self.parameters.exact_below, rows.count - rows.living
        tail = rows.count - rows.frozen
        grown = tail > max(exact, rows.frozen // 4) if rows.frozen else rows.living > exact
        if not grown and dead <= max(1000, rows.living // 2):
            return None
        return Renewal(rows, rows.count, np.flatnonzero(rows.alive.upto(rows.count)))

    def renew(self, renewal: Renewal, made: Rows) -> None:
        """Search rows that were laid anew, with all that came meanwhile."""
        old = renewal.rows
        alive = old.alive.upto(old.count)
        for slot in np.flatnonzero(~alive[renewal.slots]):
            made.take_out(int(slot))
        late = renewal.count + np.flatnonzero(alive[renewal.count :])
        for slot, vector in zip(late.tolist(), old.vectors(late), strict=True):
            values = [column.of(slot) for column in old.columns.values()]
            made.add(old.keys[slot], int(old.versions.upto(slot + 1)[slot]), vector, values)
        self._adopt(made)

    def restore(
        self, rows: Rows | None, gone: dict[Key, int], refused: dict[Key, tuple[int, str]]
    ) -> None:
        """Begin with what a snapshot had."""
        self.gone, self.refused = gone, refused
        if rows is not None:
            self._adopt(rows)

    def begin_anew(self) -> None:
        """Let whatever comes be newer than all that is known."""
        self.gone.clear()
        self.refused = {key: (0, why) for key, (_, why) in self.refused.items()}
        if self.rows is not None:
            self.rows.versions.upto(self.rows.count)[:] = 0

    def _adopt(self, rows: Rows) -> None:
        self.rows, self._places = rows, dict(places(rows))

    # --- what asks it ---------------------------------------------------------------------------

    def search(self, queries: Floats, k: int, where: Where) -> list[list[Near]]:
        """The nearest of each query, nearest first; from any thread.

        Raises:
            SearchError: the queries have other dimensions than the vectors.
        """
        rows = self.rows
        if rows is None or k < 1:
            return [[] for _ in queries]
        self._fits(rows, queries)
        return rows.search(queries, k, where)

    def scores(self, query: Floats, keys: Sequence[Key]) -> dict[Key, float]:
        """How near the vectors of keys are, of those that have one."""
        rows = self.rows
        if rows is None:
            return {}
        self._fits(rows, query[None, :])
        found = sorted((self._places[key], key) for key in keys if key in self._places)
        if not found:
            return {}
        own = rows.vectors(np.array([slot for slot, _ in found], dtype=np.intp))
        near = scores(query[None, :], own, self.parameters.metric)[0]
        return {key: float(score) for (_, key), score in zip(found, near, strict=True)}

    def lacking(self, keys: Iterable[Key]) -> list[Key]:
        """Those of the keys that have no vector here."""
        return [key for key in keys if key not in self._places]

    def _fits(self, rows: Rows, queries: Floats) -> None:
        if queries.shape[1] != rows.dimensions:
            raise SearchError(
                f"the vector has {queries.shape[1]} dimensions, and the index has {rows.dimensions}"
            )
