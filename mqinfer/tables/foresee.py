"""Foresee: what becomes of a table and its rows when this code's row type comes. Changes nothing.

`migrate` does it; here is told beforehand what it would refuse, and what it leaves as it is
although the type says otherwise: rows that are there are never changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from mqinfer.errors import ConflictError
from mqinfer.message import Row
from mqinfer.ports import Database
from mqinfer.tables import migrate
from mqinfer.tables.owners import has_owners
from mqinfer.tables.sql import literal, quoted
from mqinfer.tables.tables import FRAMEWORK, TableSchema, same_type, schema_of, widens
from mqinfer.tables.types import Type, parse


@dataclass(slots=True)
class Foresight:
    """What a table meets.

    Attributes:
        conflicts: why rows could not be stored, a line each.
        notes: what stays though the type says otherwise, a line each.
    """

    conflicts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


async def foresee(db: Database, row_type: type[Row], app: str | None = None) -> Foresight:
    """Compare the table of `row_type` with what there is.

    Args:
        db: that has it.
        row_type: of the rows.
        app: whose table it is to be; None does not ask.

    Raises:
        WiringError: `row_type` cannot be a table.
        TableError: ClickHouse refused a question.
        Unavailable: ClickHouse does not answer.
    """
    schema = schema_of(row_type)
    found = Foresight()
    view, storage = await migrate.look(db, schema)
    stored = await migrate.columns(db, schema.storage)
    shared = row_type.__mqinfer__.shared or not has_owners(schema)
    try:
        if view is not None:
            migrate.check_view(schema, view)
        if storage is None:
            return found
        schema = migrate.as_stored(schema, storage)
        migrate.check_owner(schema, storage, stored, app, shared=shared)
        migrate.check_storage(schema, storage, db.cluster)
    except ConflictError as error:
        found.conflicts.append(str(error))
        return found
    types = schema.types
    outcomes = await asyncio.gather(
        *(migrate.change(db, schema, name, stored.get(name), types[name]) for name in types),
        return_exceptions=True,
    )
    for name, outcome in zip(types, outcomes, strict=True):
        if isinstance(outcome, ConflictError):
            found.conflicts.append(str(outcome))
        elif isinstance(outcome, BaseException):
            raise outcome
        elif outcome is None and not same_type(stored[name], types[name]):
            found.notes += await _stays(db, schema, name, stored[name], types[name])
    if (more := migrate.grown(schema, storage)) is not None:
        found.notes.append(more)
    if not schema.by_days:
        found.notes.append(migrate.without_days(schema))
    own = {*types, *(name for name, _ in FRAMEWORK)}
    found.notes += [
        f"table {schema.name}: column {name!r} is of no field any more; it is kept, and new rows "
        f"show the default of {type_} there. Leave it out of averages, or drop it from "
        f"{schema.storage} when no older worker runs"
        for name, type_ in stored.items()
        if name not in own
    ]
    return found


async def _stays(
    db: Database, schema: TableSchema, name: str, has: str, wants: str
) -> Iterable[str]:
    """What is told of a column that holds more than the field has."""
    try:
        old, new = parse(has), parse(wants)
    except ValueError:
        return ()
    where = f"table {schema.name}, column {name!r}"
    if lost := _lost(old, new):
        rows = await _count(db, schema, f"{quoted(name)} IN ({', '.join(map(literal, lost))})")
        names = ", ".join(map(repr, lost))
        return (f"{where}: {rows:,} rows hold {names}, which the field no longer has; they stay",)
    if old.nullable and not new.nullable:
        rows = await _count(db, schema, f"isNull({quoted(name)})")
        return (f"{where}: it stays {has}, and {rows:,} rows go on showing NULL",)
    if old != new and widens(wants, has):
        return (f"{where}: it stays {has}, which holds what the field wants ({wants})",)
    return ()


def _lost(old: Type, new: Type) -> list[str]:
    """Members of an enumeration that the field no longer has."""
    kept = dict(new.plain.members)
    return [name for name, _ in old.plain.members if kept and name not in kept]


async def _count(db: Database, schema: TableSchema, condition: str) -> int:
    (row,) = await db.query(f"SELECT count() AS n FROM {quoted(schema.storage)} WHERE {condition}")
    return int(row["n"])
