"""Tables as they lie: rows, parts, bytes and days of each table; and to lay them by days."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mqinfer.errors import MqinferError
from mqinfer.tables import migrate
from mqinfer.tables.bydays import Say, lay_by_days
from mqinfer.tables.tables import UNMERGED, DeadLetterRow, schema_of

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.message import Row
    from mqinfer.ports import Database

NO_BIRTH = datetime.date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class StoredTable:
    """One table.

    Attributes:
        table: its name, as users know it.
        exists: whether it was made yet.
        by_days: whether its rows lie by the day of their birth; False: made by an earlier version.
        keep: seconds after which workers drop a day; None: never.
        rows: copies that lie in it, hidden ones and repeats that are not merged yet too.
        parts: that they lie in.
        bytes: on disk, compressed.
        unmerged: days of which a query has to merge parts.
        oldest: the first day of birth; None where there is none.
        newest: the last one.
        no_birth: rows whose birth nobody knows; no day takes them along.
        old_days: days before the one asked for, or those that `keep` lets go, and what goes with
            them.
        old_rows: rows of theirs.
        old_bytes: bytes of theirs.
    """

    table: str
    exists: bool
    by_days: bool = True
    keep: float | None = None
    rows: int = 0
    parts: int = 0
    bytes: int = 0
    unmerged: int = 0
    oldest: datetime.date | None = None
    newest: datetime.date | None = None
    no_birth: int = 0
    old_days: int = 0
    old_rows: int = 0
    old_bytes: int = 0


async def stored(app: App, db: Database, before: datetime.date | None = None) -> list[StoredTable]:
    """What lies in each table of an app, the one of dead letters last.

    Args:
        app: whose tables.
        db: that has them.
        before: a deletion of the days before this one is reckoned up; None: of those that each
            table's `keep` lets go.

    Raises:
        TableError, PermissionDenied, Unavailable: ClickHouse does not say.
    """
    return [await _stored(db, kind, before) for kind in _kinds(app)]


async def lay_all_by_days(app: App, db: Database, say: Say) -> None:
    """Lay the rows of every table of an app by days that do not lie so yet (`tables.bydays`).

    Args:
        app: whose tables.
        db: that has them; a statement may take minutes.
        say: is told how far it is, a line each time.

    Raises:
        MqinferError: what went wrong with the first table that failed; the others are laid.
    """
    failed: list[MqinferError] = []
    for kind in _kinds(app):
        schema = schema_of(kind)
        try:
            _, storage = await migrate.look(db, schema)
            if storage is None:
                continue  # a worker makes it by days
            if not await lay_by_days(db, kind, app.name, say):
                say(f"{schema.name}: lay by days before")
        except MqinferError as error:
            say(f"{schema.name}: {error}")
            failed.append(error)
    if failed:
        raise failed[0]


def _kinds(app: App) -> list[type[Row]]:
    kinds: list[type[Row]] = [*app.rows.values(), DeadLetterRow]
    return list(dict.fromkeys(kinds))


async def _stored(db: Database, kind: type[Row], before: datetime.date | None) -> StoredTable:
    schema = schema_of(kind)
    _, storage = await migrate.look(db, schema)
    if storage is None:
        return StoredTable(schema.name, exists=False, keep=schema.keep)
    if before is None and schema.keep is not None:
        age = datetime.timedelta(seconds=schema.keep)
        before = (datetime.datetime.now(datetime.UTC) - age).date()
    by_days = migrate.as_stored(schema, storage).by_days
    rows = await db.query(
        "SELECT partition, sum(rows) AS rows, count() AS parts, sum(bytes_on_disk) AS bytes, "
        f"{UNMERGED} AS unmerged FROM system.parts "
        "WHERE database = currentDatabase() AND table = {storage:String} AND active "
        "GROUP BY partition",
        {"storage": schema.storage},
    )
    dated: dict[datetime.date, dict[str, Any]] = {}
    if by_days:
        dated = {datetime.date.fromisoformat(str(row["partition"])): row for row in rows}
    without = dated.pop(NO_BIRTH, None)
    old = [row for day, row in dated.items() if before is not None and day < before]
    return StoredTable(
        schema.name,
        exists=True,
        by_days=by_days,
        keep=schema.keep,
        rows=sum(row["rows"] for row in rows),
        parts=sum(row["parts"] for row in rows),
        bytes=sum(row["bytes"] for row in rows),
        unmerged=sum(row["unmerged"] for row in dated.values()),
        oldest=min(dated, default=None),
        newest=max(dated, default=None),
        no_birth=without["rows"] if without else 0,
        old_days=len(old),
        old_rows=sum(row["rows"] for row in old),
        old_bytes=sum(row["bytes"] for row in old),
    )
