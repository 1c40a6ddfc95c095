"""Truth: what people know of rows, kept by the rows' ids; and the accuracy that follows from it.

What is true of a row is true of each answer to the same message, by the same stage and of the same
number among the answers to it, as `runs compare` matches rows: labelled once, a live row judges
every version that was replayed there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Final

from mqinfer.monitor.accuracy import Estimate, estimated
from mqinfer.monitor.asking import Counted
from mqinfer.monitor.counting import key_sql, whose_sql
from mqinfer.monitor.distance import wilson
from mqinfer.monitor.follow import Series
from mqinfer.tables import migrate
from mqinfer.tables.sql import quoted, text_literal
from mqinfer.tables.tables import schema_of

if TYPE_CHECKING:
    from mqinfer.monitor.watched import Field, Watched
    from mqinfer.ports import Database
    from mqinfer.tables.tables import TableSchema

TRUTHS: Final = "mqinfer_truths"
ENOUGH: Final = 100  # rows of a window whose truth is known, for its accuracy to be counted
_INPUT: Final = "arrayElement(_ancestors, -1)"  # of a row: the message that it answers
_AT_ONCE: Final = 1_000  # rows of a statement


@dataclass
class Known:
    """What is known of the rows of one label's series.

    Attributes:
        bins: (rows, right ones) by bin of confidence, of all rows whose truth is known.
        windows: (rows, right ones) of live rows, of this window and the one before it.
    """

    bins: dict[str, tuple[int, int]] = field(default_factory=dict)
    windows: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0), (0, 0)])

    def estimate(self, ago: int, sure: Mapping[str, int]) -> Estimate | None:
        """The accuracy of a window: counted where enough truth is known, else estimated.

        Args:
            ago: 0 of this window, 1 of the one before.
            sure: rows of the window by bin of confidence.
        """
        rows, right = self.windows[ago]
        if rows >= ENOUGH:
            low, high = wilson(right, rows)
            return Estimate(right / rows, float(low), float(high), rows, rows, true=True)
        return estimated(sure, self.bins)


class Truths:
    """The truths of one app.

    Args:
        db: that has them.
        app: whose.
    """

    def __init__(self, db: Database, app: str):
        self._db = db
        self._app = app

    async def ensure(self) -> None:
        """Make their table where it is not there."""
        if not await migrate.columns(self._db, TRUTHS):
            await self._db.command(
                f"CREATE TABLE IF NOT EXISTS {TRUTHS} (app LowCardinality(String), "
                "`table` LowCardinality(String), `column` LowCardinality(String), id String, "
                "value String, at Float64) ENGINE = ReplacingMergeTree(at) "
                "ORDER BY (app, `table`, `column`, id)"
            )

    async def say(
        self, table: str, column: str, pairs: Iterable[tuple[str, str]], now: float
    ) -> int:
        """Keep what is true of rows; what is said last of one is what counts.

        Args:
            table: of the rows.
            column: of the label.
            pairs: a row's `_id`, and its right label.
            now: seconds since the epoch.

        Returns:
            How many were told.
        """
        told = 0
        for some in _parts(pairs):
            place = ", ".join(map(text_literal, (self._app, table, column)))
            values = ", ".join(
                f"({place}, {text_literal(name)}, {text_literal(value)}, {now!r})"
                for name, value in some
            )
            await self._db.command(f"INSERT INTO {TRUTHS} VALUES {values}")
            told += len(some)
        return told

    async def accuracy(
        self, one: Watched, counts: Mapping[Series, Counted], now: float, window: float
    ) -> dict[Series, list[Estimate]]:
        """Of each label of which truth is known the accuracy of the last two windows.

        Args:
            one: the table.
            counts: of its series.
            now: seconds since the epoch.
            window: seconds.
        """
        found: dict[Series, list[Estimate]] = {}
        by_name = {mark.column: mark for mark in one.fields}
        for label in (mark for mark in one.fields if mark.what == "label"):
            sure = by_name.get(label.number or "")
            known = await self.known(schema_of(one.row), label, sure, now, window)
            for series, truth in known.items():
                own = replace(series, column=sure.column if sure else "")
                bins = counts.get(own) or Counted("confidence")
                told = (truth.estimate(1, bins.before), truth.estimate(0, bins.window))
                found[series] = [estimate for estimate in told if estimate is not None]
        return found

    async def known(
        self, schema: TableSchema, label: Field, sure: Field | None, now: float, window: float
    ) -> dict[Series, Known]:
        """What is known of a label, by series; nothing is asked of the table where there is none.

        Args:
            schema: of the table.
            label: its field.
            sure: the field of its confidence, if it has one.
            now: seconds since the epoch.
            window: seconds.
        """
        names = {"app": self._app, "table": schema.name, "column": label.column}
        said = (
            f"SELECT id, argMax(value, at) AS value FROM {TRUTHS} WHERE app = {{app:String}} "
            "AND `table` = {table:String} AND `column` = {column:String} GROUP BY id"
        )
        (some,) = await self._db.query(f"SELECT count() AS n FROM ({said})", names)
        if not some["n"]:
            return {}
        model, version = whose_sql(label)
        storage = quoted(schema.storage)
        inputs = (
            f"SELECT arrayElement(_ancestors, -1) FROM {storage} "
            f"WHERE _id IN (SELECT id FROM ({said}))"
        )
        # Rows of the inputs that have any truth, each with its number among the answers.
        numbered = (
            f"SELECT *, {_INPUT} AS mq_input, row_number() OVER "
            f"(PARTITION BY _run, _stage, {_INPUT} ORDER BY _sequence, _published, _id) AS mq_n "
            f"FROM {storage} FINAL WHERE {_INPUT} IN ({inputs})"
        )
        truths = (
            "SELECT mq_input, mq_n, _stage AS mq_stage, value AS mq_truth FROM "
            f"({numbered}) AS r INNER JOIN ({said}) AS t ON r._id = t.id"
        )
        ago = (
            "if(_run = '', intDiv(greatest({now:UInt32} - toUnixTimestamp(toDateTime(_published)), "
            "0), {window:UInt32}), 9)"
        )
        rows = await self._db.query(
            "SELECT model, version, bin, ago, count() AS n, countIf(answer = truth) AS hits FROM ("
            f"SELECT {model} AS model, {version} AS version, {key_sql(label)} AS answer, "
            f"{key_sql(sure) if sure else text_literal('')} AS bin, mq_truth AS truth, "
            f"{ago} AS ago FROM ({numbered}) AS r INNER JOIN ({truths}) AS t "
            "ON r.mq_input = t.mq_input AND r.mq_n = t.mq_n AND r._stage = t.mq_stage) "
            "GROUP BY model, version, bin, ago",
            {**names, "now": int(now), "window": int(window)},
        )
        found: dict[Series, Known] = {}
        for row in rows:
            series = Series(schema.name, label.column, str(row["model"]), str(row["version"]))
            one, before = found.setdefault(series, Known()), int(row["ago"])
            place, more = str(row["bin"]), (int(row["n"]), int(row["hits"]))
            one.bins[place] = _more(one.bins.get(place, (0, 0)), *more)
            if before < len(one.windows):
                one.windows[before] = _more(one.windows[before], *more)
        return found


def _more(before: tuple[int, int], rows: int, right: int) -> tuple[int, int]:
    return before[0] + rows, before[1] + right


def _parts(pairs: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    rest = iter(pairs)
    while some := list(islice(rest, _AT_ONCE)):
        yield some
