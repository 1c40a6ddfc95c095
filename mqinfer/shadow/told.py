"""Told: how a shadow stands, in a line: what it has answered, passed over, and what agrees."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from mqinfer.marker import Label, marks_of
from mqinfer.replay.compare import compare
from mqinfer.replay.coverage import RunInput
from mqinfer.replay.promote import COVERED
from mqinfer.tables.migrate import ensure_table
from mqinfer.tables.sql import text_literal

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.ports import Database
    from mqinfer.replay.run import Run
    from mqinfer.shadow.shadows import Shadow

_REASONS = 3  # the most frequent ones


@dataclass(frozen=True, slots=True)
class Told:
    """How a shadow stands.

    Attributes:
        model: its name.
        version: that answers beside.
        stage: that asks.
        share: of its live messages.
        run: the shadow's name.
        goes_on: whether it takes what is published now; else it works off what is left.
        answered: messages.
        skipped: messages that it passed over.
        reasons: the most frequent of why, and how often.
        tables: of each, rows that were matched with live ones, and the part that is the same.
        labels: columns that are labels, and the part of their values that is the same.
    """

    model: str
    version: str
    stage: str
    share: float
    run: str
    goes_on: bool
    answered: int | None = None
    skipped: int | None = None
    reasons: tuple[tuple[str, int], ...] = ()
    tables: tuple[tuple[str, int, float | None], ...] = ()
    labels: tuple[tuple[str, float], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        tables = [
            {"table": table, "matched": matched, "agreement": agreement}
            for table, matched, agreement in self.tables
        ]
        reasons = [{"reason": reason, "messages": count} for reason, count in self.reasons]
        labels = [{"label": label, "agreement": agreement} for label, agreement in self.labels]
        return asdict(self) | {"tables": tables, "labels": labels, "reasons": reasons}

    @property
    def same(self) -> str:
        """What agrees with the live rows, in words."""
        parts = [
            f"{100 * agreement:.2f} % of {matched:,} ({table})"
            for table, matched, agreement in self.tables
            if agreement is not None
        ]
        return ", ".join(parts) or "-"


def plain(shadow: Shadow, run: Run) -> Told:
    """What is known of a shadow without ClickHouse."""
    return Told(
        model=shadow.model,
        version=shadow.version,
        stage=run.stage,
        share=run.beside or 0.0,
        run=run.name,
        goes_on=run.open,
    )


async def told(app: App, shadow: Shadow, run: Run, db: Database) -> Told:
    """How a shadow stands.

    Raises:
        TableError: ClickHouse refused a question.
        Unavailable: it does not answer.
    """
    await ensure_table(db, RunInput)
    counts = await db.query(
        f"SELECT skipped, count() AS n FROM {COVERED} FINAL WHERE app = {text_literal(app.name)} "
        f"AND run = {text_literal(run.name)} GROUP BY skipped ORDER BY n DESC, skipped"
    )
    skipped = [(str(one["skipped"]), int(one["n"])) for one in counts if one["skipped"]]
    found = await compare(app, run, None, db, examples=0)
    return replace(
        plain(shadow, run),
        answered=sum(int(one["n"]) for one in counts if not one["skipped"]),
        skipped=sum(count for _, count in skipped),
        reasons=tuple(skipped[:_REASONS]),
        tables=tuple(
            (table["table"], table["matched"], table["agreement"]) for table in found["tables"]
        ),
        labels=tuple(
            (f"{table['table']}.{column}", table["columns"][column]["agreement"])
            for table in found["tables"]
            for column in _labels(app, table["table"])
            if table["matched"] and column in table["columns"]
        ),
    )


def _labels(app: App, table: str) -> list[str]:
    """The columns of a table that are labels."""
    return [mark.column for mark in marks_of(app.rows[table]) if isinstance(mark.marker, Label)]
