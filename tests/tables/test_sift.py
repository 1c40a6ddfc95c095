"""The rows that a table refuses are found with few rehearsals, and no good one among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.errors import BadRows, Unavailable
from mqinfer.message import Row
from mqinfer.ports import Origin
from mqinfer.tables.block import Block, build_block
from mqinfer.tables.sift import sift
from mqinfer.tables.tables import schema_of


class Reading(Row, table="reading", order_by="n"):
    n: int
    text: str


def block_of(texts: Sequence[str]) -> Block:
    rows = [(Reading(n, text), Origin(id=f"id-{n}")) for n, text in enumerate(texts)]
    return build_block(schema_of(Reading), rows)


class Table:
    """Refuses rows of these numbers, and texts; says which row, and which column, if it is to."""

    def __init__(self, numbers: set[int], text: str | None = None, *, tells: bool = False):
        self.numbers, self.text, self.tells = numbers, text, tells
        self.rehearsals: list[int] = []

    async def __call__(self, data: Sequence[Sequence[Any]]) -> None:
        self.rehearsals.append(len(data[0]))
        for row, (number, text) in enumerate(zip(data[0], data[1], strict=True)):
            if text == self.text:
                at = row if self.tells else None
                raise BadRows(f"no {text}", row=at, column="text" if self.tells else None)
            if number in self.numbers:
                raise BadRows(f"no {number}", row=row if self.tells else None)


@pytest.mark.parametrize("tells", [False, True])
@given(numbers=st.sets(st.integers(0, 99)), count=st.integers(0, 100))
async def test_all_that_are_bad_are_found_and_no_other(
    tells: bool, numbers: set[int], count: int
) -> None:
    table = Table(numbers, tells=tells)
    found = await sift(block_of(["x"] * count), table)
    assert found == {number: f"no {number}" for number in numbers if number < count}
    if tells:
        # A part a time as long as it is refused, and one for what is left.
        assert len(table.rehearsals) <= 2 * len(found) + 2


async def test_one_bad_row_of_many_costs_as_many_rehearsals_as_it_can_be_halved() -> None:
    table = Table({731})
    assert list(await sift(block_of(["x"] * 1024), table)) == [731]
    assert len(table.rehearsals) <= 2 * 7 + 1 + 8  # halves down to eight, and these


async def test_a_value_that_is_refused_is_so_in_every_row_that_holds_it() -> None:
    texts = ["bad" if number % 3 else "good" for number in range(300)]
    table = Table(set(), "bad", tells=True)
    found = await sift(block_of(texts), table)
    assert found == {number: "no bad" for number in range(300) if number % 3}
    assert len(table.rehearsals) == 3  # what is left goes in two parts


async def test_two_causes_in_one_block() -> None:
    texts = ["bad" if number in {5, 80} else "good" for number in range(100)]
    found = await sift(block_of(texts), Table({7, 81}, "bad", tells=True))
    assert found == {5: "no bad", 80: "no bad", 7: "no 7", 81: "no 81"}


async def test_where_there_is_no_rehearsing_it_says_so() -> None:
    async def away(_: object) -> None:
        raise Unavailable("gone")

    with pytest.raises(Unavailable):
        await sift(block_of(["x", "y"]), away)


async def test_a_row_that_the_server_names_wrongly_is_looked_for() -> None:
    """As by a later version, whose texts are others."""

    class Wrong(Table):
        async def __call__(self, data: Sequence[Sequence[Any]]) -> None:
            try:
                await super().__call__(data)
            except BadRows as error:
                raise BadRows(str(error), row=10_000, column="nope") from None

    assert list(await sift(block_of(["x"] * 50), Wrong({17}))) == [17]
