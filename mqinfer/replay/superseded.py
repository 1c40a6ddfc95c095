"""Superseded: which rows a promoted run took the place of, and who took the place of its own.

Promoted runs that cover a message stand in a line, in the order of their promotions, with the live
rows at its head. A run supersedes what stood right before it, and is superseded by what stands
right behind it; only the last is shown. All of it follows from the promoted runs and what they
cover, as in `promote`, and is computed in ClickHouse.

Rows are paired by the message that they answer, the stage that made them, and their order among its
answers; where following stages were taken along, by the columns that the table is sorted by, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mqinfer.replay import coverage
from mqinfer.replay.promote import (
    ANSWERED,
    inputs_sql,
    owner_sql,
    promoted_of,
    stages_of,
    texts,
)
from mqinfer.tables.migrate import ensure_table
from mqinfer.tables.sql import quoted, text_literal
from mqinfer.tables.tables import TableSchema

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.ports import Database
    from mqinfer.replay.run import Run

_SETTINGS = " SETTINGS join_use_nulls = 0"


class Succession:
    """One table where a promoted run took over.

    Args:
        app: whose runs they are.
        schema: of the table.
        run: that was promoted.
        earlier: runs that were promoted before it, the latest last.
    """

    def __init__(self, app: App, schema: TableSchema, run: Run, earlier: Sequence[Run]):
        self._app = app
        self._schema = schema
        self._run = run
        self._earlier = earlier

    def _rows(self, among: Sequence[str]) -> str:
        """SQL for the covered rows of these runs, each with the nearest message it answers."""
        keys = "".join(f", {quoted(key)}" for key in self._schema.order_by)
        return (
            "SELECT * FROM (SELECT _id, _run, _stage, _models, _sequence, _published"
            f"{keys}, arrayJoin(arrayEnumerate(_ancestors)) AS mq_place, "
            f"_ancestors[mq_place] AS mq_input FROM {quoted(self._schema.storage)} FINAL "
            f"WHERE has({texts(among)}, _run) AND has({texts(stages_of(self._run))}, _stage)) "
            f"WHERE mq_input IN ({inputs_sql(self._app, self._run.name)}) "
            "ORDER BY mq_place DESC LIMIT 1 BY _id"
        )

    def _numbered(self, rows: str) -> str:
        place = ", ".join(["mq_input", "_stage", *self._match()])
        return (
            f"SELECT *, row_number() OVER (PARTITION BY {place} ORDER BY {ANSWERED}) AS mq_n "
            f"FROM ({rows})"
        )

    def _match(self) -> list[str]:
        return [quoted(key) for key in self._schema.order_by] if self._run.downstream else []

    def _old(self) -> str:
        """What would be shown if the run, and those promoted after it, were not."""
        rows = self._rows(["", *(run.name for run in self._earlier)])
        lineage = (
            "SELECT _id AS mq_id, _stage AS mq_stage, arrayJoin(_ancestors) AS mq_ancestor "
            f"FROM {quoted(self._schema.storage)} FINAL "
            f"WHERE has({texts(stages_of(self._run))}, _stage)"
        )
        return (
            f"SELECT r.* FROM ({rows}) AS r "
            f"LEFT JOIN ({owner_sql(self._app, lineage, self._earlier)}) AS o ON r._id = o.mq_row "
            "WHERE r._run = o.mq_owner"
        )

    def _pairs(self, select: str) -> str:
        """Old rows beside new ones; a side that has none is empty."""
        on = " AND ".join(
            f"new.{name} = old.{name}" for name in ["mq_input", "_stage", "mq_n", *self._match()]
        )
        return (
            f"SELECT {select} FROM ({self._numbered(self._old())}) AS old "
            f"FULL OUTER JOIN ({self._numbered(self._rows([self._run.name]))}) AS new ON {on}"
        )

    async def counts(self, db: Database, old: Run | None = None) -> list[dict[str, Any]]:
        """How many rows took the place of how many, by runs and models of both.

        Args:
            db: the tables.
            old: count only what took the place of this run's rows.

        Returns:
            For each combination: `old` and `new` (each `run` and `models`, or None where that side
            has no row), and `rows`.
        """
        where = "" if old is None else f" WHERE old._run = {text_literal(old.name)}"
        found = await db.query(
            self._pairs(
                "old._id != '' AS has_old, old._run AS old_run, old._models AS old_models, "
                "new._id != '' AS has_new, new._run AS new_run, new._models AS new_models, "
                "count() AS rows"
            )
            + f"{where} GROUP BY ALL ORDER BY rows DESC, old_run, toString(old_models), "
            f"toString(new_models){_SETTINGS}"
        )
        return [
            {"old": _side(row, "old"), "new": _side(row, "new"), "rows": row["rows"]}
            for row in found
        ]

    async def rows(self, db: Database, limit: int) -> list[dict[str, Any]]:
        """Row by row: the `input`, the `key` columns, and `old` and `new` as in `counts`."""
        keys = ", ".join(
            f"toString(if(has_old, old.{quoted(key)}, new.{quoted(key)})) AS {quoted(f'mq_{key}')}"
            for key in self._schema.order_by
        )
        found = await db.query(
            self._pairs(
                "old._id != '' AS has_old, old._run AS old_run, old._models AS old_models, "
                "new._id != '' AS has_new, new._run AS new_run, new._models AS new_models, "
                f"if(has_old, old.mq_input, new.mq_input) AS input{keys and ', '}{keys}"
            )
            + f" ORDER BY input, greatest(old.mq_n, new.mq_n), old._id, new._id "
            f"LIMIT {int(limit)}{_SETTINGS}"
        )
        return [
            {
                "input": row["input"],
                "key": {key: row[f"mq_{key}"] for key in self._schema.order_by},
                "old": _side(row, "old"),
                "new": _side(row, "new"),
            }
            for row in found
        ]


def _side(row: dict[str, Any], side: str) -> dict[str, Any] | None:
    if not row[f"has_{side}"]:
        return None
    return {"run": row[f"{side}_run"], "models": dict(row[f"{side}_models"])}


async def superseded(
    app: App, run: Run, every: Sequence[Run], db: Database, *, rows: int = 0
) -> dict[str, dict[str, Any]]:
    """For each table of a promoted run: what it `supersedes`, and what it is `superseded_by`.

    Args:
        app: the app.
        run: of it.
        every: all of its runs.
        db: the tables.
        rows: so many pairs of rows are listed as well; 0 is none.

    Returns:
        By table; nothing if the run is not promoted. In `old` and `new`, `run` is "" for live. Each
        entry of `superseded_by` also says which `run` that was, since it may have no row there.
    """
    line = promoted_of(every)
    names = [one.name for one in line]
    if run.name not in names:
        return {}
    place = names.index(run.name)
    await ensure_table(db, coverage.RunInput)
    found = {}
    for table, row in coverage.row_types(app, run).items():
        schema = await ensure_table(db, row, app.name)
        ours = Succession(app, schema, run, line[:place])
        later: list[dict[str, Any]] = []
        for at in range(place + 1, len(line)):
            heir = Succession(app, schema, line[at], line[:at])
            later += [{"run": line[at].name, **cell} for cell in await heir.counts(db, run)]
        found[table] = {
            "supersedes": await ours.counts(db),
            "superseded_by": later,
            "pairs": await ours.rows(db, rows) if rows else [],
        }
    return found
