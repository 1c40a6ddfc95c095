"""Column: which ClickHouse type a field of a row is stored as, where the default is not wanted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """In an annotation: `grade: Annotated[int, Column("UInt8")]`.

    A field that may be None becomes Nullable by itself. A value that the type cannot hold is
    dead-lettered with its row; it is never cut down to fit, except that decimals are rounded.

    Attributes:
        type: the ClickHouse type, as `CREATE TABLE` takes it.
    """

    type: str
