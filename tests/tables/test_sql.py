"""Values as literals of a statement: the server reads what was written."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.tables.migrate import ensure_table
from mqinfer.tables.sql import literal
from tests.support.rowtypes import row, write


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@given(st.text(st.characters(exclude_categories=["Cs"])))
async def test_text_literals_are_plain_text(text: str) -> None:
    quoted = literal(text)
    assert quoted[0] == quoted[-1] == "'"
    # Unescaped by the rules of ClickHouse it is the text again.
    inner, plain = iter(quoted[1:-1]), ""
    for char in inner:
        assert char != "'"
        plain += {"0": "\0"}.get(escaped := next(inner), escaped) if char == "\\" else char
    assert plain == text


async def test_every_literal_is_what_the_server_reads(db: ClickHouse) -> None:
    moment = datetime.datetime(2026, 5, 1, 12, 0, 0, 5, tzinfo=datetime.UTC)
    values: dict[str, tuple[Any, Any, Any]] = {
        "s": (str, "it's \\ \n\t `q` \0 ü", None),
        "i": (int, -5, None),
        "f": (float, float("inf"), None),
        "b": (bool, True, None),
        "y": (bytes, b"\xc3\xbc'\\", "ü'\\"),
        "d": (datetime.date, datetime.date(1999, 12, 31), None),
        "t": (datetime.datetime, moment, None),
        "u": (uuid.UUID, uuid.UUID(int=5), None),
        "m": (decimal.Decimal, decimal.Decimal("1.25"), None),
        "e": (Colour, Colour.BLUE, "blue"),
        "n": (int | None, None, None),
    }
    await ensure_table(db, row({"old": int}))
    await write(db, row({"old": int}), row({"old": int})(old=1))
    wider = row({"old": int, **{n: (t, v) for n, (t, v, _) in values.items()}})
    await ensure_table(db, wider)
    (found,) = await db.query("SELECT * FROM t")
    for name, (_, value, shown) in values.items():
        expected = value if shown is None else shown
        if name == "t":
            expected = moment.replace(tzinfo=None)
            found[name] = found[name].replace(tzinfo=None)
        assert found[name] == expected, name
