"""Places: the tables and views of counting are made, checked and changed, as tables of rows are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mqinfer.errors import ConflictError
from mqinfer.monitor import counting
from mqinfer.tables import migrate
from mqinfer.tables.sql import quoted, text_literal
from mqinfer.tables.tables import TableSchema, same_type, schema_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mqinfer.monitor.watched import Watched
    from mqinfer.ports import Database


async def ensure_counts(
    db: Database, watched: Watched, app: str, refused: Sequence[str] = ()
) -> TableSchema:
    """Make what counts the rows of a table, or change it to what this version counts.

    Safe to call from many workers at once. A view that counts something else is replaced.

    Args:
        db: that has the table.
        watched: the table, which is made too.
        app: whose it is.
        refused: columns that have too many values to be counted.

    Returns:
        The schema of the table as it is there.

    Raises:
        ConflictError: something of that name is not ours, or differs in what cannot be changed.
        TableError, PermissionDenied, Unavailable: ClickHouse refused or does not answer.
    """
    schema = await migrate.ensure_table(db, watched.row, app)
    found = await migrate.all_columns(db, *counting.COLUMNS)
    for table, has in zip(counting.COLUMNS, found, strict=True):
        if not has:
            await db.command(counting.create(table))
        for statement in _changes(table, has):
            await db.command(statement)
    fields = [field for field in watched.fields if field.column not in refused]
    comment = await _view(db, schema)
    if not fields:
        return schema
    if comment != counting.mark(schema, fields):
        await db.command(counting.create_view(schema, fields))
    return schema


async def foresee_counts(db: Database, watched: Watched) -> list[str]:
    """Why the rows of a table could not be counted, a line each; changes nothing.

    Raises:
        TableError, PermissionDenied, Unavailable: ClickHouse refused or does not answer.
    """
    found: list[str] = []
    there = await migrate.all_columns(db, *counting.COLUMNS)
    for table, has in zip(counting.COLUMNS, there, strict=True):
        try:
            _changes(table, has)
        except ConflictError as error:
            found.append(str(error))
    try:
        await _view(db, schema_of(watched.row))
    except ConflictError as error:
        found.append(str(error))
    return found


def _changes(table: str, has: dict[str, str]) -> list[str]:
    """The statements that give a table what columns it lacks; `has` is empty without a table.

    Raises:
        ConflictError: a column has another type.
    """
    statements = []
    for name, type_ in counting.COLUMNS[table]:
        if has and name not in has:
            statements.append(
                f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {quoted(name)} {type_}"
            )
        elif has and not same_type(has[name], type_):
            raise ConflictError(
                f"table {table}, column {name!r}: it has {has[name]} and wants {type_}: rename the "
                "table, and its rows are counted anew from what is stored"
            )
    return statements


async def _view(db: Database, schema: TableSchema) -> str | None:
    """The comment of the view that counts a table; None where there is none.

    Raises:
        ConflictError: what is called so is none of ours.
    """
    name = counting.view_of(schema)
    rows = await db.query(
        "SELECT engine, comment FROM system.tables "
        f"WHERE database = currentDatabase() AND name = {text_literal(name)}"
    )
    if not rows:
        return None
    engine, comment = str(rows[0]["engine"]), str(rows[0]["comment"])
    if engine != "View" or not comment.startswith(counting.OURS):
        raise ConflictError(
            f"{name} exists in ClickHouse and is not mqinfer's (it is a {engine}): rename it, or "
            f"give the row type of {schema.name} another table="
        )
    return comment
