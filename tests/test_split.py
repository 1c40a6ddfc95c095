"""The splitter: those at fault stand alone at last, all others pass, and few tries are enough."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from mqinfer.split import Split


def run(
    parts: Sequence[Sequence[int]], bad: set[int], few: int
) -> tuple[list[int], list[int], int]:
    """What passed and what is at fault, in the order in which that was known; and the tries."""
    split = Split(parts, few=few)
    passed: list[int] = []
    faults: list[int] = []
    tries = 0
    while part := split.take():
        tries += 1
        if bad.isdisjoint(part):
            passed += part
        else:
            faults += split.refused(part)
    return passed, faults, tries


@given(
    st.integers(0, 300).flatmap(
        lambda n: st.tuples(st.just(n), st.sets(st.integers(0, max(0, n - 1))), st.integers(1, 8))
    )
)
def test_each_item_passes_or_is_at_fault(given: tuple[int, set[int], int]) -> None:
    count, bad, few = given
    bad &= set(range(count))
    passed, faults, tries = run([range(count)], bad, few)
    assert passed == [n for n in range(count) if n not in bad]
    assert faults == sorted(bad)
    deep = math.ceil(math.log2(count)) if count > 1 else 0
    assert tries <= 1 + len(bad) * (2 * deep + few)


def test_parts_are_tried_in_order_and_empty_ones_are_not() -> None:
    split = Split(["ab", "", "c"])
    assert [split.take(), split.take(), split.take()] == ["ab", "c", None]


def test_halves_and_then_few_alone() -> None:
    split = Split(["abcdefgh"], few=4)
    assert not split.refused(split.take() or "")
    assert split.take() == "abcd"
    assert not split.refused("abcd")
    assert [split.take() for _ in range(5)] == ["a", "b", "c", "d", "efgh"]
