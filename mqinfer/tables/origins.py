"""Origins: where the rows of a block come from, column by column; pure.

An object for each row would cost more than its columns do: rows of packs come as columns already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any

from mqinfer.message import Row
from mqinfer.ports import Origin


@dataclass(slots=True)
class Origins:
    """What `Origin` says of one row, of many; the columns are those of a table, in their order."""

    id: list[str] = field(default_factory=list)
    ancestors: list[tuple[str, ...]] = field(default_factory=list)
    stage: list[str] = field(default_factory=list)
    run: list[str] = field(default_factory=list)
    models: list[Any] = field(default_factory=list)
    sequence: list[int] = field(default_factory=list)
    published: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, origins: Sequence[Origin]) -> Origins:
        """Those of rows that came one by one."""
        return cls(*(list(map(get, origins)) for get in _GETTERS))

    def columns(self) -> list[list[Any]]:
        """All columns."""
        return [get(self) for get in _GETTERS]

    def only(self, places: Sequence[int]) -> Origins:
        """Those of some rows."""
        return Origins(*([column[place] for place in places] for column in self.columns()))

    def extend(self, others: Origins) -> None:
        """Those of more rows, behind these."""
        for column, more in zip(self.columns(), others.columns(), strict=True):
            column += more

    def __len__(self) -> int:
        return len(self.id)


_GETTERS = [attrgetter(one.name) for one in fields(Origins)]


@dataclass(slots=True)
class Batch:
    """Rows to be stored together, and where they come from.

    Attributes:
        rows: of one type.
        origins: theirs.
    """

    rows: list[Row] = field(default_factory=list)
    origins: Origins = field(default_factory=Origins)

    @classmethod
    def of(cls, items: Sequence[tuple[Row, Origin]]) -> Batch:
        """Rows that came one by one."""
        return cls([row for row, _ in items], Origins.of([origin for _, origin in items]))

    def __len__(self) -> int:
        return len(self.rows)
