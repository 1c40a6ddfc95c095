"""Compare: what a run says beside what was said before, computed in ClickHouse.

Rows are matched by what they answer: the message that was replayed, and their order among the
answers to it in the table. (Where following stages were taken along, their rows come in no order
of their own: they are matched by the columns that the table is sorted by as well.) All rows of the
run count, shown or not, and on the other side all live rows, or another run's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from mqinfer.blobfields import blob_columns
from mqinfer.errors import ConfigurationError
from mqinfer.replay import coverage
from mqinfer.replay.promote import ANSWERED, COVERED, inputs_sql, stages_of, texts
from mqinfer.tables.columns import ColumnSpec
from mqinfer.tables.migrate import ensure_table
from mqinfer.tables.sql import quoted, text_literal
from mqinfer.tables.tables import TableSchema, schema_of

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.message import Row
    from mqinfer.ports import Database
    from mqinfer.replay.run import Run

LIVE = "live"
_MATRIX = 50  # cells of a column's matrix that are given, the largest
_LABELS = ("String", "LowCardinality(String)", "Bool", "Enum", "Int", "UInt")
_NUMBERS = ("Int", "UInt", "Float", "Decimal")


def _plain(kind: str) -> str:
    return kind.removeprefix("Nullable(").removesuffix(")") if kind[:9] == "Nullable(" else kind


def is_label(kind: str) -> bool:
    """Whether a column's values are counted: text, truth values, whole numbers."""
    return _plain(kind).startswith(_LABELS)


def is_number(kind: str) -> bool:
    """Whether a column's values have a mean."""
    return _plain(kind).startswith(_NUMBERS)


class Comparison:
    """One table of a run beside the live rows or another run's.

    Args:
        app: the app.
        row: the table's row type.
        run: the new side.
        other: the old side; None is live.
        ignore: columns that are not compared.
    """

    def __init__(
        self, app: App, row: type[Row], run: Run, other: Run | None, ignore: Collection[str] = ()
    ):
        self.schema: TableSchema = schema_of(row)
        self._app = app
        self._run = run
        self._other = other
        keys = set(self.schema.order_by)
        blobs = blob_columns(row)
        # What could be compared, and what is.
        self.comparable = [
            one.name for one in self.schema.columns if one.name not in keys | blobs.keys()
        ]
        self.ignored = [name for name in self.comparable if name in ignore]
        self.columns: list[ColumnSpec] = [
            column
            for column in self.schema.columns
            if column.name in self.comparable and column.name not in ignore
        ]
        self.blobs = sorted(blobs)
        self.shown = [column.name for column in self.schema.columns]

    # --- SQL ------------------------------------------------------------------------------------

    def _side(self, run: str) -> str:
        """The rows of one side with the input that they answer and their number."""
        covered = f"mq_input IN ({inputs_sql(self._app, self._run.name)})"
        if self._other is not None:
            covered += f" AND mq_input IN ({inputs_sql(self._app, self._other.name)})"
        place = ", ".join(["mq_input", *self._keys()])
        return (
            f"SELECT *, row_number() OVER (PARTITION BY {place} ORDER BY {ANSWERED}) AS mq_n "
            "FROM (SELECT *, arrayJoin(_ancestors) AS mq_input "
            f"FROM {quoted(self.schema.storage)} FINAL WHERE _run = {text_literal(run)} "
            f"AND has({texts(stages_of(self._run))}, _stage)) WHERE {covered}"
        )

    def _keys(self) -> list[str]:
        """Columns that rows are matched by beside their input."""
        return [quoted(key) for key in self.schema.order_by] if self._run.downstream else []

    def _joined(self, how: str, select: str) -> str:
        old = "" if self._other is None else self._other.name
        on = " AND ".join(
            f"new.{name} = old.{name}" for name in ["mq_input", "mq_n", *self._keys()]
        )
        return (
            f"SELECT {select} FROM ({self._side(self._run.name)}) AS new "
            f"{how} JOIN ({self._side(old)}) AS old ON {on}"
        )

    @staticmethod
    def _same(name: str) -> str:
        new, old = f"new.{quoted(name)}", f"old.{quoted(name)}"
        return f"ifNull({new} = {old}, isNull({new}) AND isNull({old}))"

    def _agree(self) -> str:
        return " AND ".join(self._same(column.name) for column in self.columns) or "1"

    # --- questions ------------------------------------------------------------------------------

    async def facts(self, db: Database, examples: int) -> dict[str, Any]:
        """All that is said of the table, in plain types."""
        (totals,) = await db.query(
            self._joined(
                "FULL OUTER",
                "countIf(new._id != '' AND old._id != '') AS matched, "
                "countIf(old._id = '') AS only_new, countIf(new._id = '') AS only_old, "
                f"countIf(new._id != '' AND old._id != '' AND {self._agree()}) AS agree",
            )
            + " SETTINGS join_use_nulls = 0"
        )
        matched = totals["matched"]
        columns = {}
        for column in self.columns:
            columns[column.name] = await self._column(db, column, matched)
        return {
            "table": self.schema.name,
            **totals,
            "agreement": totals["agree"] / matched if matched else None,
            "columns": columns,
            "ignored": self.ignored,
            "blobs": self.blobs,
            "examples": await self._examples(db, examples) if matched else [],
        }

    async def _column(self, db: Database, column: ColumnSpec, matched: int) -> dict[str, Any]:
        name, kind = quoted(column.name), column.kind.type
        (found,) = await db.query(
            self._joined("INNER", f"countIf({self._same(column.name)}) AS same")
        )
        facts: dict[str, Any] = {
            "type": kind,
            "agreement": found["same"] / matched if matched else None,
        }
        if is_label(kind):
            text = "ifNull(toString({side}." + name + "), 'NULL') AS {side}_value"
            facts["changes"] = await db.query(
                self._joined(
                    "INNER",
                    f"{text.format(side='old')}, {text.format(side='new')}, count() AS n",
                )
                + " GROUP BY old_value, new_value ORDER BY n DESC, old_value, new_value "
                f"LIMIT {_MATRIX}"
            )
        if is_number(kind):
            new, old = f"toFloat64(new.{name})", f"toFloat64(old.{name})"
            (facts["numbers"],) = await db.query(
                self._joined(
                    "INNER",
                    f"avg({old}) AS old_mean, avg({new}) AS new_mean, "
                    f"avg({new} - {old}) AS shift, avg(abs({new} - {old})) AS mean_change, "
                    f"max(abs({new} - {old})) AS most_change",
                )
            )
        return facts

    async def _examples(self, db: Database, count: int) -> list[dict[str, Any]]:
        """The rows that changed most: in most columns, and then by most in numbers."""
        changed = " + ".join(f"(NOT {self._same(c.name)})" for c in self.columns) or "0"
        # A number's change counts by its part of the larger of the two.
        distances = [
            f"ifNull(abs(toFloat64(new.{n}) - toFloat64(old.{n})) / "
            f"greatest(abs(toFloat64(new.{n})), abs(toFloat64(old.{n})), 1e-12), 0)"
            for n in (quoted(c.name) for c in self.columns if is_number(c.kind.type))
        ]
        return await self._pairs(
            db,
            f"{changed} AS mq_changed, {' + '.join(distances) or '0'} AS mq_distance",
            "mq_changed > 0 ORDER BY mq_changed DESC, mq_distance DESC, mq_message",
            count,
        )

    async def cell(
        self,
        db: Database,
        column: str,
        old: str,
        new: str,
        count: int,
        after: tuple[str, str] | None = None,
    ) -> list[dict[str, Any]]:
        """Rows of one cell of a label's matrix, in the order of their inputs' ids.

        Args:
            db: the tables.
            column: the label, one of `columns`.
            old: its value before, as the matrix has it.
            new: its value in the run.
            count: the most.
            after: `input` and `row` of the last one that is known.

        Raises:
            ConfigurationError: there is no matrix of such a column.
        """
        labels = [one.name for one in self.columns if is_label(one.kind.type)]
        if column not in labels:
            raise ConfigurationError(
                f"table {self.schema.name} has no label {column[:60]!r} that is compared; it has: "
                + (", ".join(labels) or "none")
            )
        name = quoted(column)
        where = " AND ".join(
            f"ifNull(toString({side}.{name}), 'NULL') = {text_literal(value)}"
            for side, value in (("old", old), ("new", new))
        )
        if after is not None:
            where += f" AND (new.mq_input, new._id) > ({', '.join(map(text_literal, after))})"
        return await self._pairs(db, "1 AS mq_same", f"{where} ORDER BY mq_message, mq_id", count)

    async def _pairs(self, db: Database, more: str, which: str, count: int) -> list[dict[str, Any]]:
        """Rows of both sides, those that `which` chooses, with their input."""
        texts_of = {name: "{}" if name in self.blobs else "toString({})" for name in self.shown}
        values = ", ".join(
            f"{text.format(f'{side}.{quoted(name)}')} AS {quoted(f'{side}.{name}')}"
            for side in ("old", "new")
            for name, text in texts_of.items()
        )
        rows = await db.query(
            self._joined("INNER", f"new.mq_input AS mq_message, new._id AS mq_id, {values}, {more}")
            + f" WHERE {which} LIMIT {int(count)}"
        )
        sequences = await self._sequences(db, [row["mq_message"] for row in rows])
        return [
            {
                "input": row["mq_message"],
                "sequence": sequences.get(row["mq_message"]),
                "row": row["mq_id"],
                "old": {name: row[f"old.{name}"] for name in self.shown},
                "new": {name: row[f"new.{name}"] for name in self.shown},
            }
            for row in rows
        ]

    async def _sequences(self, db: Database, inputs: Sequence[str]) -> dict[str, int]:
        """Where in the stream the run has read these messages."""
        found = await db.query(
            f"SELECT input, sequence FROM {COVERED} FINAL "
            f"WHERE app = {text_literal(self._app.name)} "
            f"AND run = {text_literal(self._run.name)} AND has({texts(inputs)}, input)"
        )
        return {row["input"]: row["sequence"] for row in found}


async def compare(
    app: App,
    run: Run,
    other: Run | None,
    db: Database,
    *,
    examples: int = 10,
    ignore: Collection[str] = (),
) -> dict[str, Any]:
    """A run beside the live rows, or beside another run where both have answered.

    Args:
        app: the app.
        run: the new side.
        other: the old side; None is live.
        db: the tables.
        examples: of rows that changed, in each table.
        ignore: columns, of any of the tables, in which rows may differ and be the same.

    Raises:
        ConfigurationError: no table has such a column; the text lists those there are.
    """
    rows = coverage.row_types(app, run).values()
    comparisons = [Comparison(app, row, run, other, ignore) for row in rows]
    known = dict.fromkeys(name for one in comparisons for name in one.comparable)
    if unknown := [name for name in dict.fromkeys(ignore) if name not in known]:
        raise ConfigurationError(
            f"run {run.name} compares no column {', '.join(unknown)}; it compares: "
            + (", ".join(known) or "none")
        )
    await ensure_table(db, coverage.RunInput)
    tables = []
    for row, comparison in zip(rows, comparisons, strict=True):
        await ensure_table(db, row, app.name)
        tables.append(await comparison.facts(db, examples))
    return {"run": run.name, "with": other.name if other else LIVE, "tables": tables}
