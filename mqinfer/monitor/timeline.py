"""Timeline: what was counted of one column, in sum and over time, and what happened beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mqinfer.monitor.counting import VIEW_SUFFIX, live, of_column
from mqinfer.monitor.lines import Tally
from mqinfer.tables.sql import quoted, text_literal
from mqinfer.tables.tables import TableSchema, schema_of

if TYPE_CHECKING:
    from mqinfer.message import Row
    from mqinfer.monitor.watched import Field
    from mqinfer.ports import Database

# Seconds of a place on the axis, by the seconds that are drawn: about a hundred of them.
_PLACES: Final = ((3600, 60), (86_400, 900), (7 * 86_400, 3600), (31 * 86_400, 6 * 3600))

# By version of the model, then by key.
Tallies = Mapping[str, Mapping[str, Tally]]


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened.

    Attributes:
        at: seconds since the epoch.
        text: in words.
    """

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of keys over time.

    Attributes:
        times: seconds since the epoch, where each place begins; ascending, none left out.
        rows: in each.
        keys: share of each key in each place; None where there are no rows.
        means: of the numbers beside each key, as its confidence; None where there are none.
        began: when each version of the model answered first in this time.
    """

    times: tuple[int, ...]
    rows: tuple[int, ...]
    keys: Mapping[str, tuple[float | None, ...]]
    means: Mapping[str, tuple[float | None, ...]]
    began: Mapping[str, float]


def width(seconds: float) -> int:
    """Seconds of a place on the axis where so many are drawn."""
    for most, place in _PLACES:
        if seconds <= most:
            return place
    return 86_400


class Timeline:
    """The counts of one column.

    Args:
        db: that has them.
        row: the table's row type.
        field: the column.
        model: whose answers, where several models answer in it; "": any.
    """

    def __init__(self, db: Database, row: type[Row], field: Field, model: str = ""):
        self._db = db
        self._ours = "run = ''" + (f" AND model = {text_literal(model)}" if model else "")
        self._schema: TableSchema = schema_of(row)
        self._field = field

    async def tallies(self, since: float, until: float | None = None) -> Tallies:
        """What was counted of live rows from then on, until the other moment."""
        source = of_column(self._schema, self._field, int(since))
        before = "" if until is None else f" AND step < toDateTime({int(until)}, 'UTC')"
        return await self._tallied(source, self._ours + before)

    async def newest(self, since: float) -> Tallies:
        """The same of what came since a moment that is not long ago: reads these rows alone."""
        return await self._tallied(live(self._schema, [self._field], int(since)), self._ours)

    async def _tallied(self, source: str, where: str) -> Tallies:
        rows = await self._db.query(
            "SELECT version, key, sum(n) AS n, sum(numbers) AS numbers, sum(total) AS total, "
            f"sum(squares) AS squares FROM ({source}) WHERE {where} GROUP BY version, key"
        )
        found: dict[str, dict[str, Tally]] = {}
        for row in rows:
            tally = Tally(
                int(row["n"]), int(row["numbers"]), float(row["total"]), float(row["squares"])
            )
            found.setdefault(str(row["version"]), {})[str(row["key"])] = tally
        return found

    async def shares(self, since: float, until: float, keys: Sequence[str]) -> Shares:
        """How often some keys were said, over time, by whichever version.

        Args:
            since: seconds since the epoch.
            until: the same.
            keys: that are drawn.
        """
        place = width(until - since)
        first, last = int(since) // place, int(until) // place
        source = of_column(self._schema, self._field, first * place)
        rows = await self._db.query(
            f"SELECT intDiv(toUnixTimestamp(step), {place}) AS place, version, "
            "if(has({keys:Array(String)}, key), key, '') AS mq_key, "
            "has({keys:Array(String)}, key) AS drawn, sum(n) AS n, sum(numbers) AS numbers, "
            "sum(total) AS total, toUnixTimestamp(min(step)) AS began "
            f"FROM ({source}) WHERE {self._ours} GROUP BY place, version, mq_key, drawn",
            {"keys": list(keys)},
        )
        return _shares(rows, keys, first, last, place)

    async def first(self) -> float | None:
        """When the column was counted first; None: never."""
        (row,) = await self._db.query(
            f"SELECT toUnixTimestamp(min(step)) AS first, count() AS n "
            f"FROM {quoted(self._schema.name + VIEW_SUFFIX)} "
            f"WHERE `column` = {text_literal(self._field.column)}"
        )
        return float(row["first"]) if row["n"] else None


def _shares(
    rows: Sequence[Mapping[str, Any]], keys: Sequence[str], first: int, last: int, place: int
) -> Shares:
    total: dict[int, int] = {}
    began: dict[str, float] = {}
    drawn: dict[tuple[str, int], Tally] = {}
    for row in rows:
        at, count, version = int(row["place"]), int(row["n"]), str(row["version"])
        total[at] = total.get(at, 0) + count
        began[version] = min(began.get(version, float(row["began"])), float(row["began"]))
        if row["drawn"]:
            key = str(row["mq_key"]), at
            tally = Tally(count, int(row["numbers"]), float(row["total"]))
            drawn[key] = drawn.get(key, Tally()) + tally
    places = range(first, last + 1)
    return Shares(
        tuple(at * place for at in places),
        tuple(total.get(at, 0) for at in places),
        {
            key: tuple(
                drawn.get((key, at), Tally()).rows / total[at] if at in total else None
                for at in places
            )
            for key in keys
        },
        {key: tuple(_mean(drawn.get((key, at))) for at in places) for key in keys},
        began,
    )


def _mean(tally: Tally | None) -> float | None:
    return tally.total / tally.numbers if tally is not None and tally.numbers else None


def deployments(began: Mapping[str, float], model: str) -> list[Mark]:
    """When each version of a model began to answer, but the first one, which began nothing new."""
    ordered = sorted(began.items(), key=lambda pair: pair[1])
    return [Mark(at, f"{model} {version}") for version, at in ordered[1:] if version]


def added(one: Tallies, other: Tallies) -> Tallies:
    """The sum of both."""
    found = {version: dict(keys) for version, keys in one.items()}
    for version, keys in other.items():
        ours = found.setdefault(version, {})
        for key, tally in keys.items():
            ours[key] = ours.get(key, Tally()) + tally
    return found


def of_version(tallies: Tallies, version: str | None) -> dict[str, Tally]:
    """Those of one version; None: of all together."""
    if version is not None:
        return dict(tallies.get(version, {}))
    found: dict[str, Tally] = {}
    for keys in tallies.values():
        for key, tally in keys.items():
            found[key] = found.get(key, Tally()) + tally
    return found
