"""Lines of labels: shares, intervals, contributions and confidences agree with plain arithmetic."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.monitor.distance import psi
from mqinfer.monitor.lines import Tally, lines, spoken
from mqinfer.monitor.reference import OTHER, TOP, UNSEEN, reference_of

NUMBERS = st.lists(st.floats(0, 1), max_size=20)


def tally(numbers: list[float], rows: int | None = None) -> Tally:
    return Tally(
        len(numbers) if rows is None else rows,
        len(numbers),
        sum(numbers),
        sum(one * one for one in numbers),
    )


@given(NUMBERS, NUMBERS)
def test_a_mean_and_its_interval(one: list[float], other: list[float]) -> None:
    both = tally(one) + tally(other)
    numbers = one + other
    found = both.mean()
    if not numbers:
        assert found is None
        return
    assert found is not None
    assert found[0] == pytest.approx(statistics.fmean(numbers))
    if len(numbers) == 1:
        assert found[1] == math.inf
    else:
        half = 1.96 * statistics.stdev(numbers) / math.sqrt(len(numbers))
        assert found[1] == pytest.approx(half, abs=1e-6)


@given(st.dictionaries(st.sampled_from(["a", "b", "", "NULL", "x y"]), st.integers(0, 500)))
def test_without_a_reference_the_most_frequent_come_first(counts: dict[str, int]) -> None:
    found = lines({key: Tally(rows) for key, rows in counts.items()})
    assert [line.rows for line in found] == sorted(counts.values(), reverse=True)
    assert {line.key for line in found} == counts.keys()
    rows = sum(counts.values())
    assert sum(line.share for line in found) == pytest.approx(1 if rows else 0)
    for line in found:
        assert line.low - 1e-9 <= line.share <= line.high + 1e-9
        assert (line.before, line.part, line.change, line.group) == (None, None, None, "")


def test_what_adds_most_comes_first_and_what_is_gone_has_a_line() -> None:
    reference = reference_of([(0, {"rust": 100, "healthy": 800, "gone": 100})])
    found = lines({"rust": Tally(300), "healthy": Tally(600), "new": Tally(100)}, reference)
    by = {line.key: line for line in found}
    assert by.keys() == {"rust", "healthy", "gone", "new"}
    assert [line.part for line in found] == sorted((line.part for line in found), reverse=True)
    assert by["gone"].share == 0
    assert by["gone"].before == pytest.approx(0.1)
    assert by["gone"].change == pytest.approx(-0.1)
    assert by["rust"].change == pytest.approx(0.2)
    assert (by["new"].group, by["new"].before) == (UNSEEN, 0.0)
    now, before = [300, 600, 0, 100], [100, 800, 100, 0]
    raw = psi(now, before)
    order = ["rust", "healthy", "gone", "new"]
    for key, part in zip(order, raw.parts, strict=True):
        assert by[key].part == pytest.approx(part)


def test_a_thousand_labels_are_told_by_their_groups() -> None:
    frequent = {f"k{number}": 1000 - number for number in range(TOP)}
    rare = {f"r{number}": 1 for number in range(900)}
    reference = reference_of([(0, frequent | rare)])
    window = {key: Tally(rows) for key, rows in (frequent | rare).items()}
    found = lines(window | {"never": Tally(5000), OTHER: Tally(3)}, reference)
    assert len(found) == TOP + 900 + 2
    assert found[0].key == "never"  # its group speaks loudest
    by = {line.key: line for line in found}
    assert (by["r1"].group, by["r1"].before) == (OTHER, None)
    assert by[OTHER].group == UNSEEN  # a label that is called so is one that nobody has seen
    assert spoken(found, 3)[0] == "never"


def test_no_rows_are_no_distance() -> None:
    reference = reference_of([(0, {"a": 300})])
    (line,) = lines({}, reference)
    assert (line.key, line.rows, line.share, line.part) == ("a", 0, 0.0, None)
    assert (line.low, line.high) == pytest.approx((0.0, 1.0))
    assert spoken([line], 5) == []
