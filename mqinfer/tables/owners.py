"""Owners: the apps that write into a table, as the table's own comment says; pure.

Two apps with one table would fight over its columns, and where their stages have one name and their
messages one id, their rows would take each other's place. So a table remembers its app, and another
one is told, unless it says that it shares (`class Grade(Row, shared=True)`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from mqinfer.tables.sql import quoted, text_literal
from mqinfer.tables.tables import TableSchema, same_type

# Tables of these belong to every app: each of their rows names its own.
_EVERYONE = "mqinfer_"
_MARK = re.compile(r"(?:^|; )mqinfer: apps? ([\w-]+(?:, [\w-]+)*)$")
_MAX_NAMED = 5


def has_owners(schema: TableSchema) -> bool:
    """Whether the table belongs to some apps, and not to all."""
    return not schema.name.startswith(_EVERYONE)


def owners_of(comment: str) -> tuple[str, ...]:
    """The apps that a table's comment names; none in a table that nobody has marked."""
    found = _MARK.search(comment)
    return tuple(found[1].split(", ")) if found else ()


def marked(comment: str, *apps: str) -> str:
    """A comment that names `apps` besides those that it names, behind what else it says."""
    owners = tuple(dict.fromkeys((*owners_of(comment), *apps)))
    words = "app" if len(owners) == 1 else "apps"
    said = _MARK.sub("", comment)
    return f"{said}{'; ' if said else ''}mqinfer: {words} {', '.join(owners)}"


def mark_table(schema: TableSchema, comment: str) -> str:
    """The statement that gives the table behind the view another comment."""
    return f"ALTER TABLE {quoted(schema.storage)} MODIFY COMMENT {text_literal(comment)}"


def foreign(
    schema: TableSchema, app: str, owners: tuple[str, ...], stored: Mapping[str, str]
) -> str:
    """What the author of `app` is told of a table that other apps write into.

    Args:
        schema: as the app declares it.
        app: its name.
        owners: the others.
        stored: the columns that the table has, with their types.
    """
    fields = {column.name: column.kind.type for column in schema.columns}
    framework = schema.types.keys() - fields.keys()
    differs = [
        f"{name} ({stored.get(name, 'missing')} there, {fields.get(name, 'missing')} here)"
        for name in dict.fromkeys((*fields, *stored))
        if name not in framework and not same_type(stored.get(name, ""), fields.get(name, ""))
    ]
    more = [f"and {len(differs) - _MAX_NAMED} more"] if len(differs) > _MAX_NAMED else []
    columns = ", ".join((*differs[:_MAX_NAMED], *more))
    return (
        f"table {schema.name} belongs to app {', '.join(owners)}, and app {app} declares one of "
        f"that name{f', with other columns: {columns}' if columns else ''}: give its row type "
        "another table=, or, if both are to write into it, say shared=True"
    )
