"""What is foreseen of a table is what becomes of it."""

from __future__ import annotations

import datetime
import types
from typing import Annotated, Any

import pytest

from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.column import Column
from mqinfer.errors import ConflictError
from mqinfer.message import Row
from mqinfer.ports import Origin
from mqinfer.tables.foresee import Foresight, foresee
from mqinfer.tables.migrate import ensure_table
from mqinfer.tables.sink import Sink


def row_type(fields: dict[str, Any], **keywords: Any) -> Any:
    hints = {name: of[0] if isinstance(of, tuple) else of for name, of in fields.items()}
    space = {name: of[1] for name, of in fields.items() if isinstance(of, tuple)}
    space |= {"__annotations__": hints, "__module__": __name__}
    keywords = {"table": "grade", "kw_only": True, **keywords}
    return types.new_class("Grade", (Row,), keywords, lambda ns: ns.update(space))


TWO = Annotated[str, Column("Enum8('red' = 1, 'blue' = 2)")]
ONE = Annotated[str, Column("Enum8('red' = 1)")]
THREE = Annotated[str, Column("Enum8('red' = 1, 'blue' = 2, 'green' = 3)")]
RENUMBERED = Annotated[str, Column("Enum8('red' = 2, 'blue' = 1)")]
FIXED = Annotated[str, Column("FixedString(1)")]
MICROS = Annotated[datetime.datetime, Column("DateTime64(6, 'UTC')")]
NANOS = Annotated[datetime.datetime, Column("DateTime64(9, 'UTC')")]
EARLY, LATE = datetime.datetime(1999, 1, 1), datetime.datetime(2290, 1, 1)
SMALL = Annotated[int, Column("Int8")]

# Old fields, a row, new fields, another row; conflicts, notes.
Fields = dict[str, Any]
CHANGES: dict[str, tuple[Fields, Fields, Fields, Fields, list[str], list[str]]] = {
    "same": ({"x": int}, {"x": 1}, {"x": int}, {"x": 1}, [], []),
    "gains": ({"x": TWO}, {"x": "blue"}, {"x": THREE}, {"x": "green"}, [], []),
    "loses": ({"x": TWO}, {"x": "blue"}, {"x": ONE}, {"x": "red"}, [],
              ["column 'x': 1 rows hold 'blue', which the field no longer has; they stay"]),
    "renumbered": ({"x": TWO}, {"x": "blue"}, {"x": RENUMBERED}, {"x": "red"},
                   ["an Enum may gain members, but not lose, rename or renumber"], []),
    "required": ({"x": int | None}, {"x": None}, {"x": int}, {"x": 1}, [],
                 ["column 'x': it stays Nullable(Int64), and 1 rows go on showing NULL"]),
    "wider": ({"x": SMALL}, {"x": 1}, {"x": int}, {"x": 300}, [], []),
    "narrower": ({"x": int}, {"x": 300}, {"x": SMALL}, {"x": 1}, [],
                 ["column 'x': it stays Int64, which holds what the field wants (Int8)"]),
    "other": ({"x": int}, {"x": 1}, {"x": str}, {"x": "a"}, ["it has Int64, the field wants"], []),
    "zero_bytes": ({"x": FIXED}, {"x": "a"}, {"x": str}, {"x": "a"},
                   ["it has FixedString(1), the field wants String"], []),
    "nanoseconds": ({"x": MICROS}, {"x": LATE}, {"x": NANOS}, {"x": EARLY},
                    ["it has DateTime64(6, 'UTC'), the field wants DateTime64(9, 'UTC')"], []),
    "two": ({"x": int, "y": int}, {"x": 1, "y": 1}, {"x": str, "y": str}, {"x": "a", "y": "a"},
            ["column 'x'", "column 'y'"], []),
    "added": ({"x": int}, {"x": 1}, {"x": int, "y": (int, 7)}, {"x": 1}, [], []),
    "added_required": ({"x": int}, {"x": 1}, {"x": int, "y": int}, {"x": 1, "y": 1},
                       ["has no column 'y', and the field has no default"], []),
    "removed": ({"x": int, "y": int}, {"x": 1, "y": 2}, {"x": int}, {"x": 1}, [],
                ["column 'y' is of no field any more; it is kept"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
async def test_what_is_foreseen_is_what_happens(db: ClickHouse, name: str) -> None:
    old_fields, old, new_fields, new, conflicts, notes = CHANGES[name]
    before, after = row_type(old_fields), row_type(new_fields)
    assert await foresee(db, before) == Foresight()  # there is no table yet
    assert await Sink(db, before).write([(before(**old), Origin(id="old"))]) == {}
    found = await foresee(db, after)
    for said, wanted in ((found.conflicts, conflicts), (found.notes, notes)):
        assert len(said) == len(wanted), said
        assert all(want in line for want, line in zip(wanted, said, strict=True)), said
    if conflicts:
        with pytest.raises(ConflictError):
            await ensure_table(db, after)
        return
    assert await Sink(db, after).write([(after(**new), Origin(id="new"))]) == {}
    rows = {row["_id"]: row for row in await db.query("SELECT * FROM grade")}
    assert rows["old"].items() >= old.items()  # what was there is as it was
    assert rows["new"].items() >= new.items()


async def test_a_table_that_is_none_of_ours_is_one_conflict(db: ClickHouse) -> None:
    await db.command("CREATE TABLE grade (x Int8) ENGINE = Log")
    (conflict,) = (await foresee(db, row_type({"x": int}))).conflicts
    assert "is not mqinfer's" in conflict
