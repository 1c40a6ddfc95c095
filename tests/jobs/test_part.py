"""A part: what is told of a chunk becomes a line for each of its rows, in their order."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.completion.assemble import Died, Found, Tale
from mqinfer.completion.assemble import tale as told_of
from mqinfer.completion.progress import COMPLETE, LATE, LIMIT, TOO_MANY, Decision, packed
from mqinfer.completion.record import First, Kind, Output, Payload, Record
from mqinfer.jobs import part
from mqinfer.jobs.chunk import Failure, Item
from mqinfer.jobs.part import Line
from mqinfer.jobs.state import Counts
from mqinfer.requests.state import Body
from tests.jobs.test_state import begun

BODY = Body.of(b"{}", "application/json")
FIRST = First(("driver",), -1, 0, {})


def items(count: int, bad: frozenset[int] = frozenset()) -> list[Item]:
    wrong = Failure("invalid", "wrong")
    return [
        Item(n + 1, f"c{n}", failure=wrong) if n in bad else Item(n + 1, f"c{n}", body=BODY)
        for n in range(count)
    ]


def chunk_of(rows: int, answers: int, silent: frozenset[int]) -> list[Record]:
    """The records of a chunk whose rows have so many answers each; of some there is none."""
    outputs = tuple(Output(f"i{n}", 0, n) for n in range(rows))
    item = Kind("", ("grade",))
    made = [Record("chunk", "driver", "answered", kinds=(item,), outputs=outputs, first=FIRST)]
    answer = Kind("grade")
    made += [
        Record(
            f"i{n}",
            "grade",
            "answered",
            kinds=(answer,),
            outputs=tuple(Output(f"a{n}.{i}", 0, i, i) for i in range(answers)),
            data=tuple(Payload(b"%d" % n, "application/json") for _ in range(answers)),
        )
        for n in range(rows)
        if n not in silent
    ]
    return made


def lines(found: list[Item], told: Tale, stopping: str | None = None) -> list[Line]:
    state = msgspec.structs.replace(begun(1), stopping=stopping)
    made = part.lines_of(found, told, state)
    assert part.decode(part.encode(made)) == made
    return made


@given(st.integers(0, 20), st.integers(0, 3), st.randoms(use_true_random=False))
def test_each_row_has_its_own_answers_whatever_the_order_of_records(
    rows: int, answers: int, random: object
) -> None:
    records = chunk_of(rows, answers, frozenset())
    random.shuffle(records)  # type: ignore[attr-defined]
    told = told_of(records, {"grade"}, Decision(COMPLETE))
    made = lines(items(rows), told)
    assert [line.row for line in made] == list(range(1, rows + 1))
    for n, line in enumerate(made):
        assert line.status == "succeeded"
        assert [one.id for one in line.answers] == [f"a{n}.{i}" for i in range(answers)]
        assert {one.body.payload for one in line.answers} <= {b"%d" % n}


def test_what_is_missing_at_the_end_is_an_error_of_its_row_alone() -> None:
    records = chunk_of(4, 1, frozenset({2}))
    seen = packed(one.node for one in records)
    made = lines(
        items(4, frozenset({1})), told_of(records, {"grade"}, Decision(LATE, seen=seen)), "expired"
    )
    assert [line.status for line in made] == ["succeeded", "failed", "failed", "succeeded"]
    assert [[one.kind for one in line.errors] for line in made] == [
        [],
        ["invalid"],
        ["expired"],
        [],
    ]
    assert [line.again for line in made] == [False, False, True, False]
    assert part.counts_of(made) == Counts(2, 0, 2)


def test_of_a_chunk_that_nobody_began_every_row_can_be_tried_again() -> None:
    told = Tale("chunk", None, None, (), (), LATE, {}, "")
    made = lines(items(3), told, "canceled")
    assert [line.errors[0].kind for line in made] == ["canceled"] * 3
    assert [one.row for one in part.due(items(3), made)] == [1, 2, 3]


def test_an_answer_that_has_no_room_is_told() -> None:
    records = chunk_of(3, LIMIT // 2, frozenset())
    told = told_of(records, {"grade"}, Decision(COMPLETE))
    assert told.how == TOO_MANY
    made = lines(items(3), told)
    assert [line.status for line in made] == ["succeeded", "succeeded", "failed"]
    assert "submit with fewer a chunk" in made[2].errors[0].reason


def test_what_died_is_told_as_far_as_it_may() -> None:
    died = (
        Died("grade", "x", "rejected", "too dark"),
        Died("grade", "y", "failed", "a secret"),
        Died("grade", "z", "canceled", ""),
    )
    told = Tale("chunk", FIRST, None, (Found("a", "grade", Payload(b"1")),), died, COMPLETE, {}, "")
    told = msgspec.structs.replace(told, causes=(0,), died_of=(0, 1, 1))
    first, second = lines(items(2), told)
    assert (first.status, first.errors) == ("partial", (Failure("rejected", "too dark"),))
    assert [one.kind for one in second.errors] == ["internal", "canceled"]
    assert "secret" not in second.errors[0].reason
    assert second.errors[0].letter == "grade/y"


@given(st.sets(st.integers(1, 30)), st.sets(st.integers(1, 30)))
def test_the_newest_line_of_each_row_counts(before: set[int], after: set[int]) -> None:
    old = [Line(row, "failed") for row in sorted(before)]
    new = [Line(row, "succeeded") for row in sorted(after)]
    made = part.merged(old, new)
    assert [line.row for line in made] == sorted(before | after)
    assert all((line.status == "succeeded") == (line.row in after) for line in made)
