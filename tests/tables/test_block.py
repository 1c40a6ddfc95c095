"""Rows as columns: a value that does not fit costs its row alone, and parts are about as large."""

from __future__ import annotations

import datetime
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.column import Column
from mqinfer.message import Row
from mqinfer.ports import Origin
from mqinfer.tables.block import Block, build_block
from mqinfer.tables.tables import schema_of


class Reading(Row, table="reading", order_by="n"):
    n: Annotated[int, Column("UInt8")]
    text: str = ""
    tags: list[str] = []  # noqa: RUF012 - msgspec copies it
    day: datetime.date | None = None


def block_of(*rows: Reading) -> Block:
    return build_block(
        schema_of(Reading),
        [(row, Origin(id=f"id-{place}", sequence=place)) for place, row in enumerate(rows)],
    )


def column(block: Block, name: str) -> list[Any]:
    return list(block.data[block.names.index(name)])


@given(st.lists(st.integers(-50, 400), max_size=40))
def test_a_value_that_does_not_fit_costs_its_row_and_no_other(numbers: list[int]) -> None:
    block = block_of(*map(Reading, numbers))
    good = [place for place, number in enumerate(numbers) if 0 <= number < 256]
    assert list(block.index) == good
    assert column(block, "n") == [numbers[place] for place in good]
    assert column(block, "_id") == [f"id-{place}" for place in good]
    assert set(block.refused) == set(range(len(numbers))) - set(good)
    assert all(why.startswith("column 'n' (UInt8): ") for why in block.refused.values())
    assert len(block) == len(good)


def test_what_is_wrong_in_another_column_is_told_of_that() -> None:
    wrong: Any = "tomorrow"
    block = block_of(Reading(1), Reading(2, day=wrong), Reading(300, day=wrong), Reading(4))
    assert column(block, "n") == [1, 4]
    assert {place: why.split(":")[0] for place, why in block.refused.items()} == {
        1: "column 'day' (Nullable(Date32))",
        2: "column 'n' (UInt8)",
    }


def test_some_of_its_rows_know_where_they_stood() -> None:
    block = block_of(Reading(0), Reading(999), Reading(2), Reading(3), Reading(4))
    for some in (range(1, 3), [1, 2]):
        part = block.only(some)
        assert column(part, "n") == [2, 3]
        assert list(part.index) == [2, 3]
        assert part.refused == {}
    assert block.only(range(4)) is block
    assert column(block.only([3, 0]), "n") == [4, 0]


_readings = st.builds(
    Reading,
    st.integers(0, 255),
    st.text("ab", max_size=200),
    st.lists(st.text("ab", max_size=20), max_size=5),
)


@given(st.lists(_readings, max_size=30), st.integers(1, 3_000))
def test_parts_hold_every_row_once_and_are_no_larger_than_asked(
    rows: list[Reading], most: int
) -> None:
    block = block_of(*rows)
    bounds = list(block.cut(most))
    assert [place for start, end in bounds for place in range(start, end)] == list(range(len(rows)))
    for start, end in bounds:
        text = sum(len(row.text) + sum(map(len, row.tags)) for row in rows[start:end])
        assert end - start == 1 or text <= most


@pytest.mark.parametrize("rows", [1, 50])
def test_what_is_small_is_one_part(rows: int) -> None:
    block = block_of(*(Reading(number) for number in range(rows)))
    assert list(block.cut(1 << 20)) == [(0, rows)]
    assert list(block_of().cut(1)) == []
