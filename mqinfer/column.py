"""Column: which ClickHouse type a field of a row is stored as, where the default is not wanted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """In an annotation: `grade: Annotated[int, Column("UInt8")]`.

    A field that may be None becomes Nullable by itself. A value that the type cannot hold exactly
    is dead-lettered with its row, which names it: a decimal with more digits, a text that is no
    member of an Enum or no address. Only what the type declares is rounded to it: a float in
    Float32, the end of a second in DateTime64(3). A type that no value of the field could be sent
    to exactly, an alias (`INTEGER`) or a misspelt name is refused at the start.

    Attributes:
        type: the ClickHouse type, as `CREATE TABLE` takes it.
    """

    type: str
