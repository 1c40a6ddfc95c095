"""Seals: the SQL by which hours that are over are counted for good, and again; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from mqinfer.monitor.counting import COLUMNS, COUNTS, SEALS, counted, key_sql, written
from mqinfer.monitor.watched import Field
from mqinfer.tables.sql import quoted, text_literal
from mqinfer.tables.tables import ONE_DAY_AT_A_TIME, TableSchema

MARGIN: Final = 120  # seconds that an insert may take from its rows' `_inserted` to its end


def hours_sql(schema: TableSchema, days: int, rest: int) -> str:
    """Hours of a table that are to be sealed, the oldest first, as `hour` and `late`.

    An hour is due that ended `rest` seconds ago and was never sealed, or into which rows came that
    its seal may not have seen: an insert may have begun before the seal was made and ended later.
    It is late where a later one is sealed.

    Args:
        schema: of the table.
        days: that are looked back.
        rest: seconds.
    """
    ours = f"`table` = {text_literal(schema.name)}"
    return (
        f"SELECT l.hour AS hour, l.hour < (SELECT max(hour) FROM {SEALS} WHERE {ours}) AS late "
        "FROM ("
        "SELECT toStartOfHour(toDateTime(_published, 'UTC'), 'UTC') AS hour, "
        "max(_inserted) AS last "
        f"FROM {quoted(schema.storage)} "
        f"WHERE {written(schema, f'now() - INTERVAL {days} DAY')} "
        f"AND _published >= now() - INTERVAL {days} DAY "
        f"AND _published < toStartOfHour(now() - INTERVAL {rest} SECOND) GROUP BY hour) AS l "
        f"LEFT JOIN (SELECT hour, max(made) AS made FROM {SEALS} "
        f"WHERE {ours} GROUP BY hour) AS s ON l.hour = s.hour "
        f"WHERE isNull(s.made) OR l.last >= s.made - INTERVAL {MARGIN} SECOND "
        "ORDER BY hour SETTINGS join_use_nulls = 1"
    )


def days_sql(schema: TableSchema, hour: str) -> str:
    """The days of birth that have rows of an hour, and the server's time, as `days` and `now`."""
    return (
        "SELECT groupUniqArray(_partition_id) AS days, toString(now64(3, 'UTC')) AS now "
        f"FROM {quoted(schema.storage)} WHERE {written(schema, _moment(hour))} "
        f"AND {_within(hour)}"
    )


def rows_sql(schema: TableSchema, hour: str, days: Sequence[str]) -> str:
    """How many rows an hour has, as `n` of each `day` of birth."""
    return (
        f"SELECT _partition_id AS day, count() AS n FROM {quoted(schema.storage)} FINAL "
        f"WHERE {_of_hour(hour, days)} GROUP BY day{_by_days(schema, ' SETTINGS')}"
    )


def keys_sql(schema: TableSchema, fields: Sequence[Field], hour: str, days: Sequence[str]) -> str:
    """About how many keys each field has in an hour, as `k0`, `k1`, ..."""
    counts = ", ".join(
        # Of vectors there are few.
        f"uniq({text_literal('') if field.shape == 'vector' else key_sql(field)}) AS k{number}"
        for number, field in enumerate(fields)
    )
    return f"SELECT {counts} FROM {quoted(schema.storage)} WHERE {_of_hour(hour, days)}"


def seal_sql(
    schema: TableSchema, fields: Sequence[Field], hour: str, days: Sequence[str], seal: str
) -> str:
    """The statement that counts an hour for good, under the number of a seal."""
    query = counted(
        schema,
        fields,
        f"{quoted(schema.storage)} FINAL",
        _of_hour(hour, days),
        extra=f"{text_literal(seal)} AS seal, ",
    )
    names = ", ".join(quoted(name) for name, _ in COLUMNS[COUNTS])
    return (
        f"INSERT INTO {COUNTS} ({names})\n{query}\nSETTINGS insert_deduplicate = 0, "
        f"max_partitions_per_insert_block = 0{_by_days(schema, ',')}"
    )


def sealed_sql(
    table: str, hour: str, seal: str, made: str, refused: Sequence[str], rows: Mapping[str, int]
) -> str:
    """The statement that makes a seal the newest of its hour."""
    names = ", ".join(map(text_literal, refused))
    days = ", ".join(map(text_literal, rows))
    return (
        f"INSERT INTO {SEALS} (`table`, hour, seal, made, refused, rows) "
        f"SELECT {text_literal(table)}, toDateTime({text_literal(hour)}, 'UTC'), "
        f"{text_literal(seal)}, toDateTime64({text_literal(made)}, 3, 'UTC'), "
        f"CAST([{names}], 'Array(String)'), "
        f"CAST(([{days}], [{', '.join(map(str, rows.values()))}]), 'Map(String, UInt64)') "
        "SETTINGS insert_deduplicate = 0"
    )


def moved_sql(schema: TableSchema, hour: str, days: Sequence[str]) -> str:
    """Later hours that have not the rows any more that their seals counted, as `hour`.

    Of copies the one that the stream stored first is kept. If it came last, a row moves from the
    hour of the other one, which is a later one, to its own. Nothing else need be left of the copy
    there: ClickHouse may have merged the two. So numbers of rows are compared; they do not hide
    that one went and another came, since what comes makes its hour due.

    Only the days of birth that the hour has rows of are compared, as a row keeps its day: a day
    that was dropped since (`keep=`) leaves what was counted of it.
    """
    later = f"{_moment(hour)} + INTERVAL 1 HOUR"
    parts = ", ".join(map(text_literal, days))
    seals = f"FROM {SEALS} WHERE `table` = {text_literal(schema.name)} AND hour >= {later}"
    return (
        "SELECT DISTINCT hour FROM (\n"
        "SELECT hour, day, toInt64(n) AS n "
        f"FROM (SELECT hour, argMax(rows, (made, seal)) AS counted {seals} GROUP BY hour) "
        "ARRAY JOIN mapKeys(counted) AS day, mapValues(counted) AS n\n"
        "UNION ALL\n"
        "SELECT toStartOfHour(toDateTime(_published, 'UTC'), 'UTC') AS hour, _partition_id AS day, "
        f"-toInt64(count()) AS n FROM {quoted(schema.storage)} FINAL\n"
        f"WHERE _partition_id IN ({parts}) AND _published >= {later} "
        f"AND hour IN (SELECT hour {seals}) GROUP BY hour, day\n"
        f") WHERE day IN ({parts}) GROUP BY hour, day HAVING sum(n) != 0 ORDER BY hour"
        f"{_by_days(schema, ' SETTINGS')}"
    )


def _moment(hour: str) -> str:
    return f"toDateTime({text_literal(hour)}, 'UTC')"


def _within(hour: str) -> str:
    began = _moment(hour)
    return f"_published >= {began} AND _published < {began} + INTERVAL 1 HOUR"


def _of_hour(hour: str, days: Sequence[str]) -> str:
    """SQL for the rows of an hour; all copies of a row lie in one of the days that have any."""
    return f"_partition_id IN ({', '.join(map(text_literal, days))}) AND {_within(hour)}"


def _by_days(schema: TableSchema, before: str) -> str:
    return f"{before} {ONE_DAY_AT_A_TIME} = 1" if schema.by_days else ""
