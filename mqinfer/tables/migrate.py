"""Migrate: bring a table in the database to what its row type says, or say why it cannot be.

Many workers start at once, of the old and of the new version of an app: every step is idempotent,
what is there is read again after a step, and columns of the other version are kept and shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog

from mqinfer.errors import ConflictError, PermissionDenied, TableError
from mqinfer.message import Row
from mqinfer.ports import Database
from mqinfer.tables.clustered import SLOTS
from mqinfer.tables.owners import foreign, has_owners, mark_table, marked, owners_of
from mqinfer.tables.sharded import SLOTS as LAID_OVER
from mqinfer.tables.sql import literal
from mqinfer.tables.tables import (
    BY_DAYS,
    FRAMEWORK,
    ONE_DAY_AT_A_TIME,
    TableSchema,
    same_type,
    schema_of,
    widens,
)

log = structlog.get_logger("mqinfer.tables")

_ATTEMPTS = 8


async def ensure_table(db: Database, row_type: type[Row], app: str | None = None) -> TableSchema:
    """Create the table and view of `row_type`, or change them to match where nothing is lost.

    A new field that has a default is added, a wider type is taken over (an Enum gains members), the
    column of a field that is no more is kept. Safe to call from many workers at once.

    Args:
        db: that has it.
        row_type: of the rows.
        app: whose table it is, or becomes if it is nobody's; None does not ask.

    Returns:
        The schema, with what is of the table that is there: whether it lies by days.

    Raises:
        WiringError: `row_type` cannot be a table.
        ConflictError: it belongs to another app, or differs in what cannot be changed.
        TableError: ClickHouse refused a statement.
        Unavailable: ClickHouse does not answer; call again.
    """
    schema = schema_of(row_type)
    if not has_owners(schema):
        app = None
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            found = await _step(db, schema, app, shared=row_type.__mqinfer__.shared)
            if found is not None:
                return found
        except TableError:
            # Two workers that change one table at once can refuse each other: look again.
            if attempt == _ATTEMPTS:
                raise
    raise ConflictError(
        f"table {schema.name} keeps changing: do workers with two versions of {row_type.__name__} "
        "start at the same time? start the older ones later, or not at all"
    )


async def _step(
    db: Database, schema: TableSchema, app: str | None, *, shared: bool
) -> TableSchema | None:
    """Change what differs; when nothing did, the schema as the table has it."""
    view, storage = await look(db, schema)
    if view is not None:
        check_view(schema, view)
    if storage is None:
        await db.command(schema.create_storage(marked("", app) if app else ""))
        if view is None:  # where another made the storage meanwhile, the next step mends it
            await db.command(schema.create_view())
        return None
    schema = as_stored(schema, storage)
    stored, seen = await all_columns(db, schema.storage, schema.name)
    check_owner(schema, storage, stored, app, shared=shared)
    check_storage(schema, storage, db.cluster)
    changes = [
        statement
        for name, wanted in schema.types.items()
        if (statement := await change(db, schema, name, stored.get(name), wanted))
    ]
    for statement in changes:
        await db.command(statement)
    if changes:
        return None
    shown = {name: stored[name] for name in schema.view_columns(stored)}
    # Compared without order, or workers of two versions would replace it in turns.
    if (
        view is None
        or (ONE_DAY_AT_A_TIME in str(view["as_select"])) != schema.by_days
        or seen != shown
    ):
        await db.command(schema.create_view(stored))
        return None
    comment = str(storage["comment"])
    if app is not None and app not in owners_of(comment):
        return None if await _mark(db, schema, marked(comment, app)) else schema
    return schema


def as_stored(schema: TableSchema, storage: Mapping[str, Any]) -> TableSchema:
    """The schema of a table that is there, by days or as earlier versions made it."""
    return replace(schema, by_days=same_type(str(storage["partition_key"]), BY_DAYS))


def without_days(schema: TableSchema) -> str:
    """What is said of a table that an earlier version made."""
    return (
        f"table {schema.name} was made by an earlier version, without days: it works as it did, "
        "and each query of its view merges all of its parts; `mqinfer tables APP --migrate` lays "
        "its rows by days (docs/tables.md)"
    )


async def look(
    db: Database, schema: TableSchema
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """What there is of the view and of the table behind it.

    Of a table over several shards it is what a shard has, with `laid`: over how many slots.
    """
    slots = "" if db.cluster is None else f", {SLOTS}"  # not all may read system.clusters
    tables = {
        row["name"]: row
        for row in await db.query(
            "SELECT name, engine, engine_full, sorting_key, partition_key, as_select, comment"
            f"{slots} FROM system.tables WHERE database = currentDatabase() "
            "AND name IN ({view:String}, {storage:String}, {shard:String})",
            {
                "view": schema.name,
                "storage": schema.storage,
                "shard": schema.shard,
                "cluster": db.cluster or "",
            },
        )
    }
    storage = tables.get(schema.storage)
    if storage is not None and (laid := laid_over(storage)):
        shard = tables.get(schema.shard)
        # Without it here the two are made once more, where they are missing.
        storage = shard and {**shard, "comment": storage["comment"], "laid": laid}
    return tables.get(schema.name), storage


async def _mark(db: Database, schema: TableSchema, comment: str) -> bool:
    """Write whose the table is; a worker that may not change tables works all the same."""
    try:
        await db.command(mark_table(schema, comment))
    except (TableError, PermissionDenied) as error:
        log.warning("whose the table is was not written", table=schema.name, reason=str(error))
        return False
    return True


async def columns(db: Database, table: str) -> dict[str, str]:
    """The types of a table's columns, in their order; none if there is no such table."""
    return (await all_columns(db, table))[0]


async def all_columns(db: Database, *tables: str) -> list[dict[str, str]]:
    """The types of the columns of several tables, each as `columns` gives it."""
    rows = await db.query(
        "SELECT table, name, type FROM system.columns WHERE database = currentDatabase() "
        "AND table IN {tables:Array(String)} ORDER BY table, position",
        {"tables": list(tables)},
    )
    found: dict[str, dict[str, str]] = {table: {} for table in tables}
    for row in rows:
        found[str(row["table"])][str(row["name"])] = str(row["type"])
    return [found[table] for table in tables]


def check_view(schema: TableSchema, view: Mapping[str, Any]) -> None:
    """Raise ConflictError if what is called like the view is none of ours."""
    engine = str(view["engine"])
    if engine != "View" or schema.storage not in str(view["as_select"]):
        raise ConflictError(
            f"{schema.name} exists in ClickHouse and is not mqinfer's (it is a {engine}): rename "
            "it, or give the row type another table="
        )


def check_owner(
    schema: TableSchema,
    storage: Mapping[str, Any],
    stored: Mapping[str, str],
    app: str | None,
    *,
    shared: bool,
) -> None:
    """Raise ConflictError if the table behind the view, of columns `stored`, is another app's."""
    owners = owners_of(str(storage["comment"]))
    if app is not None and owners and app not in owners and not shared:
        raise ConflictError(foreign(schema, app, owners, stored))


def check_storage(
    schema: TableSchema, storage: Mapping[str, Any], cluster: str | None = None
) -> None:
    """Raise ConflictError if the table behind the view differs in what cannot be changed."""
    engine, sorting_key = str(storage["engine"]), str(storage["sorting_key"])
    # Replicated and Shared ones are as good, for those who create the table themselves.
    if not engine.endswith("ReplacingMergeTree"):
        raise ConflictError(
            f"table {schema.storage} has the engine {engine} and wants ReplacingMergeTree: rename "
            f"it, or give the row type of {schema.name} another table="
        )
    check_shards(schema, storage, cluster)
    if cluster is not None and engine == "ReplacingMergeTree" and not storage.get("laid"):
        raise ConflictError(
            f"table {schema.storage} is on one server alone, and MQINFER_CLICKHOUSE_CLUSTER is "
            f"{cluster}: rename it, let a worker make a replicated one, and copy its rows "
            "(docs/hosts.md)"
        )
    # Servers differ in whether they show a key of one column in brackets.
    has = tuple(part.strip().strip("`") for part in sorting_key.strip("()").split(","))
    if has != schema.sorting_key:
        raise ConflictError(
            f"table {schema.name} is sorted by ({', '.join(has[:-1])}) and order_by wants "
            f"({', '.join(schema.order_by)}); ClickHouse cannot change that: keep order_by, or "
            "give the row type another table= and copy the rows"
        )


def laid_over(storage: Mapping[str, Any]) -> int:
    """Over how many slots of shards a table of ours is laid; 0: it is none over shards."""
    if storage["engine"] != "Distributed":
        return 0
    found = LAID_OVER.search(str(storage["engine_full"]))
    return int(found[1]) if found else 0


def check_shards(schema: TableSchema, storage: Mapping[str, Any], cluster: str | None) -> None:
    """Raise ConflictError if rows do not lie where this cluster's shards look for them."""
    laid, slots = int(storage.get("laid", 0)), int(storage.get("slots", 0))
    if laid and cluster is None:
        raise ConflictError(
            f"table {schema.name} lies on the shards of a cluster: name it in "
            "MQINFER_CLICKHOUSE_CLUSTER"
        )
    if laid > slots and cluster is not None:
        raise ConflictError(
            f"table {schema.name} lies on {laid} shards, and MQINFER_CLICKHOUSE_CLUSTER={cluster} "
            f"has {slots}: the rows of the others are missing (docs/hosts.md)"
        )
    if not laid and slots > 1:
        raise ConflictError(
            f"table {schema.storage} is on one shard alone, and MQINFER_CLICKHOUSE_CLUSTER="
            f"{cluster} has {slots}: rename it, let a worker make one over all shards, and copy "
            "its rows (docs/hosts.md)"
        )


def grown(schema: TableSchema, storage: Mapping[str, Any]) -> str | None:
    """What is said of a table whose cluster has more shards than it had; None: it has not."""
    laid, slots = int(storage.get("laid", 0)), int(storage.get("slots", 0))
    if not laid or laid >= slots:
        return None
    return (
        f"table {schema.name} lies on {laid} of the {slots} shards of the cluster and stays there: "
        "rows are exact, the new shards need its tables but take no rows; to lay it over all, copy "
        "it (docs/hosts.md)"
    )


async def change(
    db: Database, schema: TableSchema, name: str, has: str | None, wants: str
) -> str | None:
    """The statement that makes of a column what the field wants; None where nothing is to be done.

    Args:
        db: where the table is.
        schema: of the table.
        name: of the column.
        has: its type now; None if there is no such column.
        wants: the type of its field.

    Raises:
        ConflictError: there is no such statement.
    """
    if has is None:
        return schema.add_column(name)
    if same_type(has, wants):
        return None
    canonical = await db.query(
        "SELECT toTypeName(defaultValueOfTypeName({type:String})) AS type", {"type": wants}
    )
    wants = str(canonical[0]["type"])
    if same_type(has, wants):
        return None
    # The numbers by which an Enum sorts stay what they are when it gains members.
    enumeration = re.match(r"Enum(8|16)\(", wants)
    movable = name not in schema.sorting_key or (enumeration and has.startswith(enumeration[0]))
    if widens(has, wants) and movable and name not in dict(FRAMEWORK):
        return schema.modify_column(name)
    if widens(wants, has):
        return None  # a worker of an older version: its values fit into the wider column
    advice = (
        f"keep the type with Annotated[..., Column({literal(has)})], or add a field with another "
        "name"
    )
    if enumeration and has.startswith("Enum"):
        advice = "an Enum may gain members, but not lose, rename or renumber any; " + advice
    elif name in schema.sorting_key:
        advice = "ClickHouse cannot change a column that the table is sorted by"
    raise ConflictError(
        f"table {schema.name}, column {name!r}: it has {has}, the field wants {wants}; {advice}"
    )
