"""`mqinfer tables`: what lies in the tables of an app, and to lay it by days."""

from __future__ import annotations

import datetime
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from mqinfer.cli import interrupt, options
from mqinfer.cli.load import load_app
from mqinfer.cli.output import print_json, print_table
from mqinfer.times import parse_duration, span

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.operate.tables import StoredTable
    from mqinfer.settings import Settings

_COLUMNS = ("table", "rows", "parts", "MB", "oldest day", "newest day", "unmerged", "without a day")
_OLD = ("keep", "older days", "their rows", "their MB")
_LONG = 6 * 3600.0  # seconds that one statement of a migration may take


def tables(
    app: options.AppName,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="AGE", help="What a deletion of the days before would take, such as 90d."
        ),
    ] = None,
    migrate: Annotated[
        bool,
        typer.Option(
            "--migrate", help="Lay tables that an earlier version made by days; workers may run."
        ),
    ] = False,
    clickhouse_url: options.ClickHouseUrl = None,
    as_json: options.AsJson = False,
) -> None:
    r"""Show rows, parts, bytes and days of each table.

    Rows lie by the UTC day of their birth, which the id of the first input tells that they come of
    (docs/tables.md). Workers drop days that are older than Row(..., keep=) says. Nothing is
    changed, but by --migrate, which may be stopped or killed at any moment and run again.

    \b
      mqinfer tables plants:app
      mqinfer tables plants:app --older-than 90d     and what a deletion would take
      mqinfer tables plants:app --migrate            tables of an earlier version, by days
    """
    settings = options.load_settings(clickhouse_url=clickhouse_url)
    options.quiet_logging(settings)
    loaded = load_app(app)
    before = None
    if older_than is not None:
        age = datetime.timedelta(seconds=parse_duration(older_than))
        before = (datetime.datetime.now(datetime.UTC) - age).date()
    found = interrupt.run(_stored(loaded, settings, before, migrate=migrate))
    if as_json:
        print_json([asdict(one) for one in found])
        return
    deletes = before is not None or any(one.keep for one in found)
    columns = (*_COLUMNS, *_OLD) if deletes else _COLUMNS
    print_table(columns, [_row(one)[: len(columns)] for one in found], right=columns[1:])
    for one in found:
        if not one.by_days:
            print(
                f"{one.table} was made by an earlier version, without days, and its queries are "
                f"slow: mqinfer tables {app} --migrate"
            )


def _row(one: StoredTable) -> list[str]:
    if not one.exists:
        return [one.table, "not made yet", *[""] * (len(_COLUMNS) + len(_OLD) - 2)]
    return [
        one.table,
        f"{one.rows:,}",
        f"{one.parts:,}",
        f"{one.bytes / 1e6:,.1f}",
        str(one.oldest or ""),
        str(one.newest or ""),
        str(one.unmerged) if one.by_days else "",
        f"{one.no_birth if one.by_days else one.rows:,}",
        "" if one.keep is None else span(one.keep),
        f"{one.old_days:,}",
        f"{one.old_rows:,}",
        f"{one.old_bytes / 1e6:,.1f}",
    ]


async def _stored(
    app: App, settings: Settings, before: datetime.date | None, *, migrate: bool
) -> list[StoredTable]:
    from mqinfer import wiring
    from mqinfer.operate.tables import lay_all_by_days, stored

    database = wiring.clickhouse(settings, change_timeout=_LONG)
    try:
        if migrate:
            await lay_all_by_days(app, database, lambda line: print(line, file=sys.stderr))
        return await stored(app, database, before)
    finally:
        await database.close()
