"""External tables: data that come with a query and are tables for it alone.

As files of a ``multipart/form-data`` body, with ``NAME_structure`` or ``NAME_types``, and
``NAME_format``, among the parameters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mqinfer.stack.clickhouse.errors import Code, EngineError
from mqinfer.stack.clickhouse.statement import identifier, quote

SUFFIXES = ("_format", "_structure", "_types")
_WORD = re.compile(r"\w+\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class ExternalTable:
    """One of them.

    Attributes:
        name: For the query.
        structure: Its columns as in CREATE TABLE.
        format: Of the data.
        path: The file with the data.
    """

    name: str
    structure: str
    format: str
    path: str

    def create(self, connection: Any, refuse: Callable[[str], None]) -> None:
        """Make it on a connection and fill it."""
        name = identifier(self.name)
        statement = f"CREATE TEMPORARY TABLE {name} ({self.structure}) ENGINE = Memory"
        refuse(statement)
        if connection.classify_query(statement)["statement_count"] != 1:
            raise EngineError(f"Bad structure of table {self.name}.", Code.BAD_ARGUMENTS)
        connection.query(statement)
        connection.query(
            f"INSERT INTO {name} FROM INFILE {quote(self.path)} COMPRESSION 'none' "
            f"FORMAT {self.format}"
        )

    def drop(self, connection: Any) -> None:
        """Take it away, if it is there."""
        with suppress(RuntimeError):
            connection.query(f"DROP TEMPORARY TABLE IF EXISTS {identifier(self.name)}")


def external_table(name: str, path: str, parameters: Mapping[str, str]) -> ExternalTable:
    """Put together what the parameters say of a file.

    Raises:
        EngineError: They do not say what columns it has.
    """
    structure = parameters.get(f"{name}_structure", "")
    if not structure:
        types = _split(parameters.get(f"{name}_types", ""))
        structure = ", ".join(f"_{number} {kind}" for number, kind in enumerate(types, 1))
    if not structure:
        raise EngineError(
            f"Neither {name}_structure nor {name}_types is given for the external table {name}.",
            Code.BAD_ARGUMENTS,
        )
    format_ = parameters.get(f"{name}_format", "TabSeparated")
    if not _WORD.match(format_):
        raise EngineError(f"Unknown format {format_!r} of table {name}.", Code.BAD_ARGUMENTS)
    return ExternalTable(name, structure, format_, path)


def _split(types: str) -> list[str]:
    """Cut at the commas outside of brackets."""
    parts, depth = [""], 0
    for character in types:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]
