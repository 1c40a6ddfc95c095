"""Unions of what records say: any order, repeats and stages of a later deployment."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.completion import progress, record
from mqinfer.completion.assemble import Incomplete, tale
from mqinfer.completion.progress import (
    COMPLETE,
    LATE,
    LIMIT,
    NODES,
    NOTHING,
    TOO_MANY,
    Decision,
    Effect,
    added,
    decided,
    node,
    nodes_in,
    outputs_in,
    split,
    told,
)
from mqinfer.completion.record import First, Kind, Output, Payload, Record, bounded, cut
from mqinfer.identity import output_id
from tests.completion.trees import ROOT, WANTED, Tree, trees

JOIN = ("report",)


@given(trees(), st.data())
def test_complete_with_the_last_record_and_not_before_in_any_order(tree: Tree, data: Any) -> None:
    records = data.draw(st.permutations(tree.records))
    known = NOTHING
    for number, one in enumerate(records):
        assert not known.complete
        repeats = data.draw(st.lists(st.sampled_from(records[: number + 1]), max_size=2))
        known = added(known, map(record.effect, [one, *repeats]), JOIN)
        known = progress.decode(progress.encode(known))
    assert known.complete
    assert known.decided == {"report": Decision(COMPLETE)}
    whole = tale(records, WANTED, known.decided["report"])
    assert [one.payload.data for one in whole.outputs] == tree.grades
    assert [(one.stage, one.id) for one in whole.died] == tree.died
    assert whole.root == Payload(b"photo")
    assert whole.missing == {}


@given(trees(), st.data())
def test_two_halves_taken_in_apart_are_the_whole(tree: Tree, data: Any) -> None:
    half = data.draw(st.lists(st.sampled_from(tree.records)))
    one = added(NOTHING, map(record.effect, half), ())
    assert one == NOTHING  # nobody waits
    rest = [one for one in tree.records if one not in half]
    first = added(NOTHING, map(record.effect, half), JOIN)
    assert added(first, map(record.effect, rest), JOIN).complete


@given(trees(), st.data())
def test_what_is_missing_is_noticed(tree: Tree, data: Any) -> None:
    gone = data.draw(st.sampled_from(tree.records))
    rest = [one for one in tree.records if one is not gone]
    with pytest.raises(Incomplete):
        tale(rest, WANTED, Decision(COMPLETE))


@given(trees(), st.data())
def test_a_deadline_is_told_what_there_was_when_it_was_decided(tree: Tree, data: Any) -> None:
    records = data.draw(st.permutations(tree.records))
    cut_at = data.draw(st.integers(0, len(records) - 1))
    known = added(NOTHING, map(record.effect, records[:cut_at]), JOIN)
    late = decided(known, JOIN, LATE)
    assert added(late, map(record.effect, records), JOIN) == late  # what comes is too late
    assert decided(late, JOIN, COMPLETE) == late
    now = tale(records[:cut_at], WANTED, late.decided["report"])
    then = tale(records, WANTED, late.decided["report"])
    assert now == then
    assert then.how == LATE
    assert {one.payload.data for one in then.outputs} <= set(tree.grades)
    if now.id:
        assert then.missing


def test_what_is_done_is_let_go_and_stays_done() -> None:
    first = First(("cut",), 0, 0, {})
    one = Record(ROOT, "cut", "answered", first=first, data=(Payload(b""),))
    known = added(NOTHING, [record.effect(one)], ("a", "b"))
    assert set(known.decided) == {"a", "b"}
    half = told(known, ["a"], ("a", "b"))
    assert half.decided["a"].told
    assert not half.decided["b"].told
    done = told(half, ["b"], ("a", "b"))
    assert done == progress.DONE
    assert len(progress.encode(done)) <= 16
    assert added(done, [record.effect(one)], ("a", "b")) == done
    assert decided(done, ["a"], LATE) == done


def test_a_record_without_the_root_completes_nothing() -> None:
    """Settled is what nobody opened: a child's records may come before the root's."""
    child = Record("child", "grade", "answered")
    parent = Record(
        "parent", "cut", "answered", kinds=(Kind("leaf", ("grade",)),),
        outputs=(Output("child", 0, 0),),
    )  # fmt: skip
    known = added(NOTHING, [record.effect(child), record.effect(parent)], JOIN)
    assert not known.complete
    assert known.counts == (1, 0)


def test_a_stage_of_a_later_deployment_is_waited_for() -> None:
    """Two stages read the root; the record of one knows of a third, which came in between."""
    old, new = First(("a", "b"), 0, 0, {}), First(("a", "b", "c"), 0, 0, {})
    data = (Payload(b""),)
    a = Record(ROOT, "a", "answered", first=old, data=data)
    b = Record(ROOT, "b", "answered", first=new, data=data)
    c = Record(ROOT, "c", "answered", first=new, data=data)
    known = added(NOTHING, [record.effect(a), record.effect(b)], JOIN)
    assert not known.complete
    assert added(known, [record.effect(c)], JOIN).complete


def test_more_than_the_bound_is_told_as_it_is() -> None:
    outputs = tuple(
        Output(output_id(ROOT, "cut", None, index), 0, index, index + 1)
        for index in range(LIMIT + 5)
    )
    big = Record(
        ROOT, "cut", "answered", kinds=(Kind("leaf", ("grade",)),), outputs=outputs,
        data=(Payload(b"photo"), *(Payload(b"x") for _ in outputs)),
        first=First(("cut",), 0, 0, {}),
    )  # fmt: skip
    (only,) = cut(bounded(big))
    assert len(only.outputs) == LIMIT + 1
    known = added(NOTHING, [record.effect(only)], JOIN)
    assert known.decided["report"].how == TOO_MANY
    found = tale([only], {"leaf"}, known.decided["report"])
    assert found.how == TOO_MANY
    assert found.root == Payload(b"photo")
    assert found.missing["grade"] == LIMIT + 1


def test_the_largest_root_fits_into_a_message_of_the_server() -> None:
    nodes = frozenset(node(str(n), "grade") for n in range(NODES))
    known = added(NOTHING, [Effect(True, nodes, nodes - {node("0", "grade")})], JOIN)
    assert known.decided == {}
    late = decided(known, JOIN, LATE)
    assert len(progress.encode(known)) < 210_000
    assert len(progress.encode(late)) < 410_000
    more = added(known, [Effect(opens=frozenset({b"one more"}))], JOIN)
    assert more.decided["report"].how == TOO_MANY


@pytest.mark.parametrize("waiting", [1, 3, 6])
@pytest.mark.parametrize("size", [1 << 16, 1 << 18, 1 << 19, 1 << 20])
def test_what_is_kept_fits_into_a_message_of_any_server(size: int, waiting: int) -> None:
    most, names = outputs_in(size), [f"report{number}" for number in range(waiting)]
    outputs = tuple(Output(output_id(ROOT, "cut", None, n), 0, n, n) for n in range(most + 5))
    big = Record(ROOT, "cut", "answered", kinds=(Kind("leaf", ("grade",)),), outputs=outputs)
    (told,) = cut(bounded(big, most), size // 2)
    assert told.too_many
    assert len(record.encode(told)) < 0.9 * size
    fits = msgspec.structs.replace(big, outputs=outputs[:most])
    assert not cut(bounded(fits, most), size)[-1].too_many

    nodes = [node(str(n), "grade") for n in range(nodes_in(size, waiting))]
    known = added(NOTHING, [Effect(opens=frozenset(nodes))], names, len(nodes))
    for name in names:
        known = added(known, [Effect(settles=frozenset(nodes))], names, len(nodes))
        known = decided(known, [name], LATE)
    assert len(progress.encode(known)) < 0.9 * size


@pytest.mark.parametrize("waiting", [1, 3])
def test_many_large_records_at_once_are_kept_no_further_than_fits(waiting: int) -> None:
    names = [f"report{number}" for number in range(waiting)]
    effects = [
        Effect(
            rooted=at == 0,
            opens=frozenset(node(f"{at} {n}", "grade") for n in range(LIMIT)),
            settles=frozenset([node(str(at), "cut")]),
        )
        for at in range(20)
    ]
    known = added(NOTHING, effects, names, nodes_in(1 << 20, waiting))
    assert {one.how for one in known.decided.values()} == {TOO_MANY}
    assert len(progress.encode(known)) < 1 << 20
    assert node("0", "cut") in split(known.decided["report0"].seen)


def test_ten_thousand_outputs_that_a_stage_reads_are_complete() -> None:
    outputs = tuple(Output(output_id(ROOT, "cut", None, n), 0, n) for n in range(LIMIT))
    kinds = (Kind("leaf", ("grade",)),)
    first, data = First(("cut",), 0, 0, {}), (Payload(b""),)
    root = Record(ROOT, "cut", "answered", kinds=kinds, outputs=outputs, data=data, first=first)
    known = added(NOTHING, [record.effect(one) for one in cut(root)], JOIN)
    assert known.decided == {}
    leaves = [Record(one.id, "grade", "answered") for one in outputs]
    known = added(known, [record.effect(one) for one in leaves], JOIN)
    assert known.decided == {"report": Decision(COMPLETE)}


def test_an_attempt_that_failed_settles_nothing_and_its_early_outputs_count() -> None:
    kinds = (Kind("leaf", ("grade",)), Kind("grade"))
    first, data = First(("cut",), 0, 0, {}), (Payload(b"photo"), Payload(b"early"))
    failed = Record(
        ROOT, "cut", "failed", kinds=kinds, first=first, data=data,
        outputs=(Output("leaf", 0, 0), Output("early", 1, 1, 1)),
    )  # fmt: skip
    dead = Record(ROOT, "cut", "dead", first=first, data=data[:1], error=("failed", "bad"))
    leaf = Record("leaf", "grade", "answered")
    known = added(NOTHING, [record.effect(failed), record.effect(leaf)], JOIN)
    assert not known.complete
    known = added(known, [record.effect(dead)], JOIN)
    assert known.complete
    whole = tale([failed, dead, leaf], WANTED, known.decided["report"])
    assert [one.payload.data for one in whole.outputs] == [b"early"]
    assert [(one.stage, one.kind) for one in whole.died] == [("cut", "failed")]
