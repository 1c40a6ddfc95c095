"""Asking: the counts of a table, in one question; its newest rows are counted once for all series.

What is to be followed step by step comes by steps, and what came before by hours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mqinfer.monitor.counting import SEALS, VIEW_SUFFIX
from mqinfer.monitor.follow import Series
from mqinfer.monitor.reference import STEP
from mqinfer.tables.sql import quoted

if TYPE_CHECKING:
    from mqinfer.ports import Database

HOUR = 3600


@dataclass
class Counted:
    """What was counted of one series.

    Attributes:
        what: it is: label, confidence, input or embedding.
        window: rows of the window by key.
        before: those of the window before it.
        hours: rows by the hour at which they were stored, seconds since the epoch.
        steps: those from `after` on, ascending, each with its rows by key.
    """

    what: str
    window: dict[str, int] = field(default_factory=dict)
    before: dict[str, int] = field(default_factory=dict)
    hours: dict[int, int] = field(default_factory=dict)
    steps: list[tuple[int, Mapping[str, int]]] = field(default_factory=list)


async def counted(
    db: Database, table: str, since: float, until: float, *, window: float, after: float
) -> dict[Series, Counted]:
    """What was counted of live rows of a table.

    Args:
        db: that has the table.
        table: its name.
        since: the first moment, seconds since the epoch.
        until: the last one, the same.
        window: seconds of the window, which ends with the last moment.
        after: from when on steps are told by themselves, the same.

    Raises:
        TableError, PermissionDenied, Unavailable: ClickHouse refused or does not answer.
    """
    rows = await db.query(
        "SELECT `column`, what, model, version, number, ago, sum(some) AS n, "
        "CAST((groupArray(key), groupArray(some)), 'Map(String, UInt64)') AS counts "
        "FROM (SELECT `column`, what, model, version, key, sum(n) AS some, "
        "intDiv({until:UInt32} - toUnixTimestamp(step) - 1, {window:UInt32}) AS ago, "
        f"if(step >= toDateTime({{after:UInt32}}, 'UTC'), intDiv(toUnixTimestamp(step), {STEP}), "
        f"-intDiv(toUnixTimestamp(step), {HOUR})) AS number "
        f"FROM {quoted(table + VIEW_SUFFIX)} WHERE run = '' "
        "AND step >= toDateTime({since:UInt32}, 'UTC') "
        "AND step < toDateTime({until:UInt32}, 'UTC') GROUP BY ALL) "
        "GROUP BY `column`, what, model, version, number, ago ORDER BY number",
        {"since": int(since), "until": int(until), "window": int(window), "after": int(after)},
    )
    found: dict[Series, Counted] = {}
    for row in rows:
        series = Series(table, str(row["column"]), str(row["model"]), str(row["version"]))
        one = found.setdefault(series, Counted(str(row["what"])))
        number, counts = int(row["number"]), dict(row["counts"])
        hour = (number * STEP // HOUR if number > 0 else -number) * HOUR
        one.hours[hour] = one.hours.get(hour, 0) + int(row["n"])
        if row["ago"] < 2:
            into = one.before if row["ago"] else one.window
            for key, count in counts.items():
                into[key] = into.get(key, 0) + count
        if number > 0:
            one.steps.append((number, counts))
    return found


async def steps(
    db: Database, series: Series, since: float, until: float, run: str
) -> list[tuple[int, Mapping[str, int]]]:
    """Steps of a series with their counts by key, ascending.

    Args:
        db: that has the table.
        series: which.
        since: the first moment, seconds since the epoch.
        until: the last one, the same.
        run: whose rows; "" is live.
    """
    rows = await db.query(
        "SELECT number, "
        "CAST((groupArray(key), groupArray(n)), 'Map(String, UInt64)') AS counts "
        f"FROM (SELECT intDiv(toUnixTimestamp(step), {STEP}) AS number, key, sum(n) AS n "
        f"FROM {quoted(series.table + VIEW_SUFFIX)} WHERE `column` = {{column:String}} "
        "AND model = {model:String} AND version = {version:String} AND run = {run:String} "
        "AND step >= toDateTime({since:UInt32}, 'UTC') "
        "AND step < toDateTime({until:UInt32}, 'UTC') GROUP BY number, key) "
        "GROUP BY number ORDER BY number",
        {
            "column": series.column,
            "model": series.model,
            "version": series.version,
            "run": run,
            "since": int(since),
            "until": max(int(until), 0),
        },
    )
    return [(int(row["number"]), dict(row["counts"])) for row in rows]


async def seals(db: Database, table: str, since: float) -> dict[int, str]:
    """The newest seal of each hour of a table that has one, by the hour's first second."""
    rows = await db.query(
        "SELECT toUnixTimestamp(hour) AS began, argMax(seal, (made, seal)) AS newest "
        f"FROM {SEALS} WHERE `table` = {{table:String}} "
        "AND hour >= toStartOfHour(toDateTime({since:UInt32}, 'UTC')) GROUP BY hour",
        {"table": table, "since": int(since)},
    )
    return {int(row["began"]): str(row["newest"]) for row in rows}
