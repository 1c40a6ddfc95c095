"""Counting: the SQL by which rows are counted, for good and as they come; pure.

Hours that are over are *sealed*: one question to the table, FINAL, whose answer goes into
`mqinfer_counts` under the number of the seal, and then a line into `mqinfer_seals`, without which
it counts nothing. The newest seal of an hour is the one that is read. What came since the last
sealed hour is counted when somebody asks: `T__counts`, a view for each table that is watched, is
the sealed hours of the table, and the same question to its newest rows. So an insert pays nothing,
and nothing that counts can stop one.

Rows are counted by the time at which the stream stored them, whether they are shown or not, and
each run by itself: promoting rewrites history, not traffic.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from mqinfer.monitor.bins import (
    CONFIDENCE_BINS,
    MISSING,
    NAN,
    OCTAVES,
    OUTSIDE,
    PER_OCTAVE,
    ZERO,
)
from mqinfer.monitor.watched import Field
from mqinfer.tables.sql import quoted, text_literal
from mqinfer.tables.tables import TableSchema

COUNTS: Final = "mqinfer_counts"
SEALS: Final = "mqinfer_seals"
CENTROIDS: Final = "mqinfer_centroids"
FAR: Final = "far"  # a vector that is near to no centroid
VIEW_SUFFIX: Final = "__counts"
STEP: Final = 10  # seconds that are counted together
MOST_KEYS: Final = 1_000  # of a column in an hour; more, and it is none that can be watched
OURS: Final = "mqinfer: counts "  # how the comment of a view begins
LIVE_DAYS: Final = 2  # that are counted when somebody asks, at most
SEALED_DAYS: Final = 400

_LONGEST = 200  # characters of a label; a longer one is cut, and told from others by a hash
_KEY = (
    ("table", "LowCardinality(String)"),
    ("column", "LowCardinality(String)"),
    ("what", "LowCardinality(String)"),
    ("model", "LowCardinality(String)"),
    ("version", "LowCardinality(String)"),
    ("run", "LowCardinality(String)"),
    ("step", "DateTime('UTC')"),
    ("key", "String"),
)
_SUMS = (("n", "UInt64"), ("numbers", "UInt64"), ("total", "Float64"), ("squares", "Float64"))
_SEAL = (("seal", "String"),)
# The columns of each table.
COLUMNS: Final = {
    COUNTS: (*_SEAL, *_KEY, *_SUMS),
    SEALS: (
        ("table", "LowCardinality(String)"),
        ("hour", "DateTime('UTC')"),
        ("seal", "String"),
        ("made", "DateTime64(3, 'UTC')"),
        ("refused", "Array(String)"),
        ("rows", "Map(String, UInt64)"),  # of each day of birth
    ),
    CENTROIDS: (
        ("table", "LowCardinality(String)"),
        ("column", "LowCardinality(String)"),
        ("model", "LowCardinality(String)"),
        ("version", "LowCardinality(String)"),
        ("id", "String"),
        ("made", "Float64"),
        ("vectors", "Array(Array(Float64))"),
        ("reach", "Float64"),
    ),
}
_ENGINES = {
    COUNTS: (
        "MergeTree\nPARTITION BY toYYYYMM(step)\n"
        "ORDER BY (`table`, `column`, step, what, model, version, run, key)\n"
        f"TTL step + INTERVAL {SEALED_DAYS} DAY"
    ),
    CENTROIDS: "MergeTree\nORDER BY (`table`, `column`, model, version)",
    SEALS: f"MergeTree\nORDER BY (`table`, hour)\nTTL hour + INTERVAL {SEALED_DAYS} DAY",
}


def create(table: str) -> str:
    """The statement that makes one of the tables."""
    lines = ",\n".join(f"  {quoted(name)} {type_}" for name, type_ in COLUMNS[table])
    return f"CREATE TABLE IF NOT EXISTS {table} (\n{lines}\n)\nENGINE = {_ENGINES[table]}"


def view_of(schema: TableSchema) -> str:
    """The name of the view of a table's counts."""
    return schema.name + VIEW_SUFFIX


def create_view(schema: TableSchema, fields: Sequence[Field]) -> str:
    """The statement that makes the view of a table's counts, or replaces it.

    Args:
        schema: of the table.
        fields: that are counted.
    """
    return (
        f"CREATE OR REPLACE VIEW {quoted(view_of(schema))} AS\n"
        f"{_shown(schema, fields)}\nCOMMENT {text_literal(mark(schema, fields))}"
    )


def mark(schema: TableSchema, fields: Sequence[Field]) -> str:
    """The comment of such a view, by which it is told from one that counts something else."""
    return f"{OURS}{hashlib.sha256(_shown(schema, fields).encode()).hexdigest()[:16]}"


def _shown(schema: TableSchema, fields: Sequence[Field]) -> str:
    names = ", ".join(quoted(name) for name, _ in (*_KEY, *_SUMS))
    return (
        f"{_sealed(schema)}\n"
        f"UNION ALL\nSELECT {names}, 0 AS sealed FROM (\n{live(schema, fields)}\n)"
    )


def _sealed(schema: TableSchema, condition: str = "") -> str:
    names = ", ".join(quoted(name) for name, _ in (*_KEY, *_SUMS))
    ours = f"`table` = {text_literal(schema.name)}"
    newest = f"SELECT hour, argMax(seal, (made, seal)) FROM {SEALS} WHERE {ours} GROUP BY hour"
    return (
        f"SELECT {names}, 1 AS sealed FROM {COUNTS}\n"
        f"WHERE {ours} AND (toStartOfHour(step), seal) IN ({newest}){condition}"
    )


def of_column(schema: TableSchema, field: Field, since: int) -> str:
    """The counts of one column from a moment on; as the view has them, and in less time.

    Args:
        schema: of the table.
        field: the column.
        since: seconds since the epoch; the step in which it lies is counted whole.
    """
    names = ", ".join(quoted(name) for name, _ in (*_KEY, *_SUMS))
    from_then = f"step >= toDateTime({since // STEP * STEP}, 'UTC')"
    column = f"`column` = {text_literal(field.column)}"
    return (
        f"{_sealed(schema, f' AND {column} AND {from_then}')}\n"
        f"UNION ALL\nSELECT {names}, 0 AS sealed FROM (\n{live(schema, [field])}\n)\n"
        f"WHERE {from_then}"
    )


def live(schema: TableSchema, fields: Sequence[Field], since: int | None = None) -> str:
    """The question, of the newest rows: those behind the last hour that is sealed.

    Args:
        schema: of the table.
        fields: that are counted.
        since: seconds since the epoch; counts the rows from then on instead, sealed or not.
    """
    # Of the copies of a row among the newest rows the one that FINAL would keep.
    key = ", ".join(map(quoted, schema.sorting_key))
    ours = f"`table` = {text_literal(schema.name)}"
    after = f"(SELECT max(hour) + INTERVAL 1 HOUR FROM {SEALS} WHERE {ours})"
    if since is not None:
        after = f"toDateTime({since}, 'UTC')"
    source = (
        f"(SELECT * FROM {quoted(schema.storage)} "
        f"WHERE {written(schema, after)} "
        f"AND _published >= {after} AND _published >= now() - INTERVAL {LIVE_DAYS} DAY "
        f"ORDER BY _version DESC LIMIT 1 BY {key})"
    )
    return counted(schema, fields, source, "1")


def written(schema: TableSchema, since: str) -> str:
    """SQL for the days of birth into which rows came since then, so that no other one is read.

    A row comes after the stream stored it; a part is as new as its newest row, or newer. Clocks may
    differ by an hour. Tables of that name in other databases make it more days, which is harmless,
    and a view must not depend on the database of whoever asks.
    """
    return (
        "_partition_id IN (SELECT partition_id FROM system.parts WHERE active "
        f"AND table = {text_literal(schema.storage)} "
        f"AND modification_time >= {since} - INTERVAL 1 HOUR)"
    )


def counted(
    schema: TableSchema, fields: Sequence[Field], source: str, condition: str, *, extra: str = ""
) -> str:
    """The question, of the rows of one table.

    Args:
        schema: of the table.
        fields: that are counted.
        source: SQL of the rows.
        condition: SQL, which of them.
        extra: further columns before the others, each with a comma behind it.
    """
    # Whose answer it is, a row tells only where the stages that make it ask different models.
    by_stage = any(field.by_stage for field in fields)
    # One look at each row, and a line of it for each field; of what is constant the label's model
    # and name are of one field, so that they are put beside it by its number.
    parts = ", ".join(
        _part(schema, number, field, by_stage) for number, field in enumerate(fields, 1)
    )
    tuples = f"arrayJoin([{parts}]) AS mq_one"

    def told(values: Sequence[str]) -> str:
        return f"[{', '.join(map(text_literal, values))}][mq_field]"

    model = "mq_model" if by_stage else told([field.model for field in fields])
    vectors = [str(number) for number, field in enumerate(fields, 1) if field.shape == "vector"]
    placed = f"\nWHERE NOT (mq_field IN ({', '.join(vectors)}) AND mq_key = '')" if vectors else ""
    asked, grouped = (", mq_one.5 AS mq_model", ", mq_model") if by_stage else ("", "")
    return (
        f"SELECT {extra}{text_literal(schema.name)} AS `table`, "
        f"{told([field.column for field in fields])} AS `column`, "
        f"{told([field.what for field in fields])} AS what, "
        f"{model} AS model, "
        "mq_version AS version, mq_run AS run, mq_step AS step, mq_key AS key, "
        "count() AS n, countIf(isFinite(mq_number)) AS numbers, "
        "sumIf(mq_number, isFinite(mq_number)) AS total, "
        "sumIf(mq_number * mq_number, isFinite(mq_number)) AS squares\n"
        "FROM (SELECT mq_run, mq_step, mq_one.1 AS mq_field, mq_one.2 AS mq_key, "
        f"mq_one.3 AS mq_number, mq_one.4 AS mq_version{asked} FROM (\n"
        f"SELECT toString(_run) AS mq_run, toStartOfInterval(toDateTime(_published, 'UTC'), "
        f"INTERVAL {STEP} SECOND, 'UTC') AS mq_step, {tuples}\n"
        f"FROM {source} WHERE {condition})){placed}\n"
        f"GROUP BY mq_field, mq_version, mq_run, mq_step, mq_key{grouped}"
    )


def _part(schema: TableSchema, number: int, field: Field, by_stage: bool) -> str:
    value = "nan"
    if field.number is not None:
        value = f"ifNull(toFloat64({quoted(field.number)}), nan)"
    model, version = whose_sql(field)
    asked = f", {model}" if by_stage else ""
    key = nearest_sql(schema, field) if field.shape == "vector" else key_sql(field)
    return f"(toUInt8({number}), {key}, {value}, {version}{asked})"


def whose_sql(field: Field) -> tuple[str, str]:
    """SQL for the model whose answer a row's field is, and for the version of it."""
    model = text_literal(field.model)
    if field.by_stage:
        stages, models = (
            f"[{', '.join(map(text_literal, names))}]"
            for names in zip(*field.by_stage, strict=True)
        )
        model = f"transform(toString(_stage), {stages}, {models}, '')"
    asks = bool(field.model or field.by_stage)
    return model, f"toString(_models[{model}])" if asks else "''"


def nearest_sql(schema: TableSchema, field: Field) -> str:
    """SQL for the centroid to which a vector is near: "" where its version has none yet."""
    model, version = whose_sql(field)
    sets = (
        "(SELECT CAST((groupArray(concat(model, '\\n', version)), groupArray(found)), "
        "'Map(String, Tuple(Array(Array(Float64)), Float64))') "
        f"FROM ({centroids_of(schema, field)}))"
    )
    own = quoted(f"mq_near_{field.column}")
    away = quoted(f"mq_away_{field.column}")
    vector = f"arrayResize(CAST({quoted(field.column)}, 'Array(Float64)'), length(c))"
    return (
        f"multiIf(empty(({sets}[concat({model}, '\\n', {version})] AS {own}).1), '', "
        f"isNaN(arrayMin(arrayMap(c -> cosineDistance({vector}, c), {own}.1) AS {away})), '{NAN}', "
        f"arrayMin({away}) > {own}.2, '{FAR}', "
        f"concat('c', leftPad(toString(indexOf({away}, arrayMin({away}))), 2, '0')))"
    )


def centroids_of(schema: TableSchema, field: Field) -> str:
    """SQL for the centroids of a column, of each model and version those that were found first."""
    return (
        "SELECT toString(model) AS model, toString(version) AS version, "
        f"argMin((vectors, reach), (made, id)) AS found FROM {CENTROIDS} "
        f"WHERE `table` = {text_literal(schema.name)} "
        f"AND `column` = {text_literal(field.column)} GROUP BY model, version"
    )


def key_sql(field: Field) -> str:
    """SQL for the key by which a column is counted; as `bins` says, where it is a number."""
    name = quoted(field.column)
    missing = text_literal(MISSING)
    if field.shape == "value":
        text = f"CAST(ifNull(toString({name}), {missing}), 'String')"
        short = f"concat(leftUTF8({text}, {_LONGEST}), '~', hex(sipHash64({text})))"
        return f"if(length({text}) > {_LONGEST}, {short}, {text})"
    number = f"toFloat64(ifNull({name}, 0))"
    if field.shape == "sure":
        ends = ", ".join(f"'{place / CONFIDENCE_BINS:.2f}'" for place in range(CONFIDENCE_BINS))
        place = f"toInt32(least(floor({number} * {CONFIDENCE_BINS}), {CONFIDENCE_BINS - 1})) + 1"
        cases = (
            f"isNaN({number}), '{NAN}', {number} < 0 OR {number} > 1, '{OUTSIDE}', "
            f"[{ends}][{place}]"
        )
    else:
        most = OCTAVES * PER_OCTAVE
        octave = f"floor(log2(abs({number})) * {PER_OCTAVE})"
        place = f"toString(toInt32(greatest(-{most}, least({most - 1}, {octave}))))"
        cases = (
            f"isNaN({number}), '{NAN}', {number} = 0, '{ZERO}', "
            f"concat(if({number} > 0, '+', '-'), {place})"
        )
    return f"multiIf(isNull({name}), {missing}, {cases})"
