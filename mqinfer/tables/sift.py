"""Sift: finds the rows of a block that a table refuses, without storing any.

Halving with inserts that count would store the good rows in ever smaller parts, down to one a row
where every second one is bad. So it is done in rehearsals, into a likeness of the table that keeps
nothing, and all good rows then go as one insert. What is known already costs no rehearsal: where
the server names the row, the rows before it are taken to be good (the insert will tell), and a
value that cannot be converted is as bad in the other rows that hold it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mqinfer.errors import BadRows
from mqinfer.ports import Rehearse
from mqinfer.split import Split
from mqinfer.tables.block import Block

# So few rows are tried one by one where the server does not say which it is.
_FEW = 8


async def sift(block: Block, rehearse: Rehearse) -> dict[int, str]:
    """Row of `block` -> reason, for those that are refused whatever they come with.

    It may miss some: those that only the table itself refuses, or for a second reason. Whoever
    inserts the others is told.

    Args:
        block: that was refused as a whole.
        rehearse: an insert that keeps nothing.

    Raises:
        TableError, PermissionDenied, Unavailable: there is no rehearsing.
    """
    bad: dict[int, str] = {}
    alike = _Alike(block)
    split = Split([range(len(block))], few=_FEW)
    while part := split.take():
        left: Sequence[int] = [row for row in part if row not in bad]
        if not left:
            continue
        rows = part if len(left) == len(part) else left
        try:
            await rehearse(block.only(rows).data)
        except BadRows as error:
            for row in split.refused(rows, error.row):
                bad |= dict.fromkeys(alike.rows(row, error.column), str(error))
    return bad


class _Alike:
    """Finds the rows that hold a value in the same column."""

    def __init__(self, block: Block):
        self._block = block
        self._columns: dict[str, dict[str, list[int]]] = {}

    def rows(self, row: int, column: str | None) -> Iterable[int]:
        """The row, and all others whose value of the column is the same."""
        if column is None or column not in self._block.names:
            return (row,)
        values = self._block.data[self._block.names.index(column)]
        found = self._columns.get(column)
        if found is None:
            found = self._columns[column] = {}
            for number, value in enumerate(values):
                found.setdefault(repr(value), []).append(number)  # lists have no hash
        return found[repr(values[row])]
