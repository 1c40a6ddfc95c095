"""Tables: the schema of a row type, and how it is made, checked and changed.

What the user queries, `T`, is a view; the rows are in `T__storage`, a ReplacingMergeTree:

* its sorting key ends in `_id`, so the same answer inserted again replaces itself, whenever it
  comes, and the view, which reads with FINAL, shows it once (promise 2);
* its version is (generation, time), and the row with the greatest one is kept for each key. A
  higher generation wins; within one, the row that the stream stored *first*, so that an answer
  stays what it was when a second attempt comes to another one after JetStream's duplicate window.
  Rows are written with generation 0. To hide or show rows, insert them again with a higher
  generation and another `_visible`; nothing that arrives late with generation 0 can undo that
  (promise 6);
* rows of a replay run are written with `_visible = 0`.

"Exact" has one condition: `order_by` columns come before `_id` in the key, so they must follow from
the input (a position, a date), not from a model's answer; else two answers to one input that
differ in them, from two attempts, count as two rows.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

from mqinfer.birth import BIRTH_SQL
from mqinfer.errors import ConflictError, WiringError
from mqinfer.marker import marks_of
from mqinfer.message import Row
from mqinfer.ports import Origin
from mqinfer.tables.columns import ColumnSpec, columns_of
from mqinfer.tables.origins import Origins
from mqinfer.tables.sharded import SHARD_SUFFIX, STORAGE_SUFFIX
from mqinfer.tables.sql import literal, quoted, text_literal
from mqinfer.tables.types import Type, parse

# Of the 64 bits of a version: generation, then what is left of the time in milliseconds (until the
# year 2527), so that an earlier time is the greater one.
_TIME_BITS = 44
_TIME_MASK = (1 << _TIME_BITS) - 1

# When a row's lineage began (`mqinfer.birth`): all copies of a row have one, so that they meet in
# one partition, and the view of a table by days need not look further.
BORN = "_born"
BY_DAYS = f"toDate({BORN})"
ONE_DAY_AT_A_TIME = "do_not_merge_across_partitions_select_final"
# The parts of the days of {storage:String}; none where it has no days.
FROM_DAYS = (
    "FROM system.parts WHERE database = currentDatabase() AND table = {storage:String} AND active "
    "AND table IN (SELECT name FROM system.tables "
    f"WHERE database = currentDatabase() AND partition_key = '{BY_DAYS}')"
)

# Whether FINAL has to merge parts of a partition: each shard of a cluster those that it has.
UNMERGED = "count() > uniqExact(shardNum()) OR min(level) = 0"

# Framework columns, as they are stored. Those the view hides come last.
FRAMEWORK: tuple[tuple[str, str], ...] = (
    ("_id", "String"),
    ("_ancestors", "Array(String)"),
    ("_stage", "LowCardinality(String)"),
    ("_run", "LowCardinality(String)"),
    ("_models", "Map(LowCardinality(String), String)"),
    ("_sequence", "UInt64"),
    ("_published", "DateTime64(9, 'UTC')"),
    (BORN, "DateTime64(3, 'UTC')"),
    ("_inserted", "DateTime64(3, 'UTC')"),
    ("_visible", "UInt8"),
    ("_version", "UInt64"),
)
_HIDDEN = ("_visible", "_version")
# What ClickHouse fills in; an insert names all others.
_DEFAULTS = {BORN: f" DEFAULT {BIRTH_SQL}", "_inserted": " DEFAULT now64(3)"}
INSERTED: tuple[tuple[str, str], ...] = tuple(c for c in FRAMEWORK if c[0] not in _DEFAULTS)


def generation_sql(version: str = "_version") -> str:
    """SQL for the generation in a version."""
    return f"bitShiftRight({version}, {_TIME_BITS})"


def version_sql(generation: str, version: str = "_version") -> str:
    """SQL for a row's version moved to another generation (an SQL expression).

    Where the result is called `_version` again, select the rows in a subquery: ClickHouse takes a
    name in WHERE for the alias rather than for the column. And turn off `insert_deduplicate`, or
    rows that were deleted and are inserted again just as they were may be taken for a repeat.
    """
    return (
        f"bitOr(bitShiftLeft(toUInt64({generation}), {_TIME_BITS}), "
        f"bitAnd({version}, {_TIME_MASK}))"
    )


def frame_values(origins: Origins | Sequence[Origin]) -> list[Sequence[Any]]:
    """The columns `INSERTED` for rows as a sink writes them."""
    columns = (origins if isinstance(origins, Origins) else Origins.of(origins)).columns()
    runs, published = columns[3], columns[6]
    # A run's rows are not shown; nearly always there are none among them.
    visible = [0 if run else 1 for run in runs] if any(runs) else [1] * len(runs)
    if published and max(published) // 1_000_000 <= _TIME_MASK:
        versions = [_TIME_MASK - time // 1_000_000 for time in published]
    else:
        versions = [_TIME_MASK - min(time // 1_000_000, _TIME_MASK) for time in published]
    return [*columns, visible, versions]


@dataclass(frozen=True, slots=True)
class TableSchema:
    """The table of a row type.

    Attributes:
        name: of the view, as users know it.
        columns: of the fields.
        order_by: columns that sort it, before `_id`.
        by_days: whether it is partitioned by the day of birth; those of earlier versions are not.
        keep: seconds after which a day of birth is dropped; None: never.
    """

    name: str
    columns: tuple[ColumnSpec, ...]
    order_by: tuple[str, ...]
    by_days: bool = True
    keep: float | None = None

    @property
    def storage(self) -> str:
        """The name of the table behind the view."""
        return self.name + STORAGE_SUFFIX

    @property
    def shard(self) -> str:
        """The name of the table that has a shard's rows, where there are several."""
        return self.name + SHARD_SUFFIX

    @property
    def sorting_key(self) -> tuple[str, ...]:
        """The columns of the key."""
        return (*self.order_by, "_id")

    @property
    def types(self) -> dict[str, str]:
        """The type of every stored column."""
        return {**{c.name: c.kind.type for c in self.columns}, **dict(FRAMEWORK)}

    def create_storage(self, comment: str = "") -> str:
        """The statement that makes the table behind the view."""
        lines = [f"  {quoted(name)} {type_}{_default(name)}" for name, type_ in self.types.items()]
        return (
            f"CREATE TABLE IF NOT EXISTS {quoted(self.storage)} (\n" + ",\n".join(lines) + "\n)\n"
            "ENGINE = ReplacingMergeTree(_version)\n"
            + (f"PARTITION BY {BY_DAYS}\n" if self.by_days else "")
            + f"ORDER BY ({', '.join(map(quoted, self.sorting_key))})\n"
            "SETTINGS non_replicated_deduplication_window = 1000"
            + (f"\nCOMMENT {text_literal(comment)}" if comment else "")
        )

    def view_columns(self, stored: Iterable[str] = ()) -> tuple[str, ...]:
        """What the view shows: fields, then columns of fields that are no more, then our own."""
        own = [column.name for column in self.columns]
        framework = [name for name, _ in FRAMEWORK]
        old = [name for name in stored if name not in own and name not in framework]
        return (*own, *old, *(name for name in framework if name not in _HIDDEN))

    def create_view(self, stored: Iterable[str] = ()) -> str:
        """The statement that makes the view, or replaces it.

        Args:
            stored: the columns that the storage has.
        """
        columns = ", ".join(map(quoted, self.view_columns(stored)))
        return (
            f"CREATE OR REPLACE VIEW {quoted(self.name)} AS\n"
            f"SELECT {columns}\nFROM {quoted(self.storage)} FINAL\nWHERE _visible = 1"
            + (f"\nSETTINGS {ONE_DAY_AT_A_TIME} = 1" if self.by_days else "")
        )

    def add_column(self, name: str) -> str:
        """The statement that adds one column.

        Raises:
            ConflictError: the field has no default for the rows that are there.
        """
        column = next((c for c in self.columns if c.name == name), None)
        default = _default(name)
        if column is not None:
            if column.default is msgspec.NODEFAULT:
                raise ConflictError(
                    f"table {self.name} has no column {name!r}, and the field has no default: "
                    "give it one, which is what the rows that are already there will show"
                )
            try:
                default = f" DEFAULT {literal(column.default)}"
            except TypeError as error:
                raise ConflictError(
                    f"table {self.name} has no column {name!r}, and its default cannot be written "
                    f"in SQL ({error}): add the column by hand"
                ) from None
        return (
            f"ALTER TABLE {quoted(self.storage)} "
            f"ADD COLUMN IF NOT EXISTS {quoted(name)} {self.types[name]}{default}"
        )

    def modify_column(self, name: str) -> str:
        """The statement that changes one column's type to what the field wants."""
        return f"ALTER TABLE {quoted(self.storage)} MODIFY COLUMN {quoted(name)} {self.types[name]}"


def _default(name: str) -> str:
    return _DEFAULTS.get(name, "")


@cache
def schema_of(row_type: type[Row]) -> TableSchema:
    """The table of a row type.

    Raises:
        WiringError: a field cannot be a column or is marked wrongly, or a column cannot be sorted
            by.
    """
    info = row_type.__mqinfer__
    name = info.table
    assert name is not None
    if name.endswith((STORAGE_SUFFIX, SHARD_SUFFIX)):
        raise WiringError(
            f"{row_type.__name__}: table {name!r} ends in {STORAGE_SUFFIX} or {SHARD_SUFFIX}, "
            "which mqinfer keeps for the tables behind its views; name it otherwise"
        )
    marks_of(row_type)  # refuses what is marked wrongly
    columns = columns_of(row_type)
    names = dict(zip(row_type.__struct_fields__, columns, strict=True))
    for field in info.order_by:
        kind = names[field].kind
        if not kind.key:
            raise WiringError(
                f"{row_type.__name__}: order_by names {field!r}, which is {kind.type}; ClickHouse "
                "sorts by strings, whole numbers, dates, booleans and UUIDs that are never missing"
            )
    order_by = tuple(names[field].name for field in info.order_by)
    return TableSchema(name, columns, order_by, keep=info.keep)


def same_type(one: str, other: str) -> bool:
    """Whether two spellings of a type are the same but for spaces and needless quotes."""
    return _plain(one) == _plain(other)


def _plain(text: str) -> str:
    # Spaces inside of quotes (values of an Enum) count; names are quoted only where they must be.
    parts = re.split(r"('(?:[^'\\]|\\.)*')", text)
    parts[::2] = [re.sub(r"[\s`]+(?=[A-Za-z_0-9(])", " ", part) for part in parts[::2]]
    parts[::2] = [re.sub(r"\s*([(),=`])\s*", r"\1", part).replace("`", "") for part in parts[::2]]
    return "".join(parts)


def widens(old: str, new: str) -> bool:
    """Whether every value of type `old` is one of `new`, so that a column may be changed."""
    old, new = _plain(old), _plain(new)
    if old == new:
        return True
    if "Enum" in old and "Enum" in new:
        return _gains(old, new)
    for wrapper in ("LowCardinality", "Array"):
        inner_old, inner_new = _inner(wrapper, old), _inner(wrapper, new)
        if inner_old and inner_new:
            return widens(inner_old, inner_new)
        if wrapper == "LowCardinality" and (inner_old or inner_new):
            return widens(inner_old or old, inner_new or new)
    if inner_new := _inner("Nullable", new):
        return widens(_inner("Nullable", old) or old, inner_new)
    if new == "String":  # not of FixedString: ClickHouse would cut zero bytes off its end
        return old == "UUID" or old.startswith("Enum")
    number = re.compile(r"(Int|UInt|Float)(\d+)")
    a, b = number.fullmatch(old), number.fullmatch(new)
    if a and b:
        bits_a, bits_b = int(a[2]), int(b[2])
        if a[1] == b[1]:
            return bits_a <= bits_b
        return a[1] == "UInt" and b[1] == "Int" and bits_a < bits_b
    if old == "Bool" and b:
        return b[1] != "Float"
    if old == "Date" and new == "Date32":
        return True
    decimals = re.compile(r"Decimal\((\d+),(\d+)\)")
    a, b = decimals.fullmatch(old), decimals.fullmatch(new)
    if a and b:
        return int(a[2]) == int(b[2]) and int(a[1]) <= int(b[1])
    times = re.compile(r"DateTime64\((\d)(,.*)?\)")
    a, b = times.fullmatch(old), times.fullmatch(new)
    # Nanoseconds end in 2262, all others later than the last value that we send.
    return bool(a and b and a[2] == b[2] and int(a[1]) <= int(b[1]) <= max(int(a[1]), 8))


def _gains(old: str, new: str) -> bool:
    """Whether types with enumerations in them differ only by members that are new in `new`."""
    try:
        return _gains_members(parse(old), parse(new))
    except ValueError:  # a type that we do not know
        return False


def _gains_members(old: Type, new: Type) -> bool:
    if new.name == "Nullable" and old.name != "Nullable":
        return _gains_members(old, new.inner[0])
    if old.members and new.members:
        roomy = new.name in (old.name, "Enum16")
        return roomy and set(old.members) <= set(new.members)
    alike = (old.name, old.names, len(old.inner)) == (new.name, new.names, len(new.inner))
    if old.inner and alike:
        return all(map(_gains_members, old.inner, new.inner))
    both = "Enum" in str(old) and "Enum" in str(new)
    return old == new if both else widens(str(old), str(new))


def _inner(wrapper: str, text: str) -> str | None:
    found = re.fullmatch(rf"{wrapper}\((.*)\)", text)
    return found[1] if found else None


class DeadLetterRow(
    Row, frozen=True, table="mqinfer_dead_letters", order_by=("app", "stage", "time")
):
    """One dead letter, to query by SQL; the message itself stays in the dead-letter stream.

    Attributes:
        app: whose it is.
        stage: that gave up.
        time: when.
        kind: decode or rejected (no attempt could succeed), failed, timeout or killed.
        reason: for a person, in one line.
        error: the type of the error.
        subject: of the message.
        sequence: of the message in its stream.
        attempts: that were made.
        message_id: identity of the message.
        run: the replay run, "" for live.
        size: of the payload, in bytes.
    """

    app: str
    stage: str
    time: datetime.datetime
    kind: str
    reason: str
    error: str
    subject: str
    sequence: int
    attempts: int
    message_id: str
    run: str = ""
    size: int = 0
