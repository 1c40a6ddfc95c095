"""A record is stored after all that it tells of, and before its message ends; whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer import App
from mqinfer.codec import Codec
from mqinfer.completion import record
from mqinfer.completion.record import PIECE, Kind, Record
from mqinfer.completion.recorder import Recorder
from mqinfer.completion.roots import root_of
from mqinfer.errors import PublishError, Reject
from mqinfer.flow.settler import DEAD_LETTER_RETRY
from mqinfer.identity import MSG_ID, ROOTS, output_id
from tests.support.flow import Double, Flow, Number, Strange

ABOVE = root_of("photo", "p1", None)
RECORDS = "settled.t.live."


async def handler(number: Number) -> list[Double | Strange]:
    raise AssertionError("nobody calls it")


def flow(*, root: bool = False, turns: list[Callable[[], None]] | None = None) -> Flow:
    """A stage below the root of a join.

    Args:
        root: it reads the roots of one, too.
        turns: is given what is called at the end of a turn; None: that is at once.
    """
    recorder = Recorder(
        App("t"),
        "s",
        None,
        root=("s", "other") if root else None,
        kind="number",
        kinds={Double: Kind("double", ("next",)), Strange: Kind("strange"), Number: Kind("number")},
        wanted={"photo": {"double"}, "number": {"strange"}},
        codec=Codec(),
        soon=(lambda call: call()) if turns is None else turns.append,
    )
    return Flow(handler, recorder=recorder, attempts=2)


def records(made: Flow) -> list[Record]:
    published = [one for one in made.broker.published if one.subject.startswith(RECORDS)]
    return [told for one in published for told in record.decode(one.payload)]


BELOW = {MSG_ID: "m1", ROOTS: str(ABOVE)}


@given(st.permutations(range(3)))
def test_after_all_outputs_and_before_the_acknowledgement(order: list[int]) -> None:
    made = flow()
    job, broker = made.job(headers=dict(BELOW)), made.broker
    made.settler.answered(job, [Double(1), Strange("x"), Double(2)])
    waiting = [broker.unanswered[index] for index in order]
    for one in waiting:
        assert records(made) == []
        assert one.headers[ROOTS] == str(ABOVE)
        broker.answer(broker.unanswered.index(one))
    (told,) = records(made)
    assert broker.said == []
    assert [one.id for one in told.outputs] == [output_id("m1", "s", None, i) for i in range(3)]
    assert [payload.data for payload in told.data] == [b'{"value":1}', b'{"value":2}']
    assert told.outcome == "answered"
    broker.answer()
    assert broker.heard() == [("ack", 1)]
    assert len(records(made)) == 1


def test_without_outputs_as_well() -> None:
    made = flow()
    made.settler.answered(made.job(headers=dict(BELOW)), ())
    assert made.broker.said == []
    (told,) = records(made)
    assert told.outputs == ()
    made.broker.answer()
    assert made.broker.heard() == [("ack", 1)]


def test_below_no_root_nothing_is_recorded() -> None:
    made = flow()
    made.settler.answered(made.job(headers={MSG_ID: "m1"}), [Double(1)])
    (only,) = made.broker.published
    assert ROOTS not in only.headers
    made.broker.answer()
    assert made.broker.heard() == [("ack", 1)]


def test_a_root_below_another_one_has_a_record_for_each() -> None:
    made = flow(root=True)
    made.settler.answered(made.job(headers=dict(BELOW)), [Double(1)])
    own = root_of("number", "m1", None)
    assert made.broker.unanswered[0].headers[ROOTS] == f"{own} {ABOVE}"
    made.broker.answer()
    of_own, of_above = records(made)
    assert of_own.first is not None
    assert (of_own.first.readers, of_own.first.outer) == (("s", "other"), str(ABOVE))
    assert of_above.first is None
    made.broker.answer()
    assert made.broker.said == []
    made.broker.answer()
    assert made.broker.heard() == [("ack", 1)]


def test_a_record_that_is_refused_is_no_answer() -> None:
    made = flow()
    made.settler.answered(made.job(headers=dict(BELOW)), [Double(1)])
    made.broker.answer()
    made.broker.answer(error=PublishError("no"))
    assert made.broker.said == [("nak", 1, DEAD_LETTER_RETRY)]


def test_a_dead_letter_then_the_record_then_the_end() -> None:
    made = flow()
    made.settler.failed(made.job(headers=dict(BELOW)), Reject("bad"))
    assert records(made) == []
    made.broker.answer()
    (told,) = records(made)
    assert (told.outcome, told.error) == ("dead", ("rejected", "bad"))
    assert made.broker.said == []
    made.broker.answer()
    assert made.broker.heard() == [("term", 1)]


@pytest.mark.parametrize("last", [False, True])
def test_what_left_early_is_told_once_it_is_stored(last: bool) -> None:
    made = flow()
    job, broker = made.job(headers=dict(BELOW), attempt=2 if last else 1), made.broker
    job.unpublished += 1  # as `Early` holds it open
    made.settler.emit_some(job, [Double(1), Double(2)], 0)
    made.settler.failed(job, ValueError("on the way"))
    if last:
        broker.answer(2)  # the dead letter
    broker.answer()
    assert records(made) == []
    broker.answer()
    (told,) = records(made)
    assert told.outcome == ("dead" if last else "failed")
    assert len(told.outputs) == 2
    assert broker.said == []
    broker.answer()
    assert broker.heard() == [("term" if last else "nak", 1)]


def test_early_outputs_of_which_one_is_not_stored_are_not_promised() -> None:
    made = flow()
    job, broker = made.job(headers=dict(BELOW), attempt=2), made.broker
    job.unpublished += 1
    made.settler.emit_some(job, [Double(1), Double(2)], 0)
    made.settler.failed(job, ValueError("on the way"))
    broker.answer(error=PublishError("no"))
    broker.answer()
    broker.answer()
    (told,) = records(made)
    assert (told.outcome, told.outputs) == ("dead", ())
    broker.answer()
    assert broker.heard() == [("term", 1)]


def test_two_attempts_that_say_different_things_have_records_of_their_own() -> None:
    ids: list[Any] = []
    for outputs in ([Double(1)], [Double(1)], [Double(1), Double(2)]):
        made = flow()
        made.settler.answered(made.job(headers=dict(BELOW)), outputs)
        for _ in outputs:
            made.broker.answer()
        ids.append(made.broker.published[-1].headers[MSG_ID])
    assert ids[0] == ids[1]
    assert ids[0] != ids[2]


def test_what_ends_in_one_turn_leaves_together() -> None:
    turns: list[Callable[[], None]] = []
    made = flow(turns=turns)
    other = root_of("photo", "p2", None)
    above = [ABOVE, other, ABOVE]
    for sequence, root in enumerate(above, 1):
        headers = {MSG_ID: f"m{sequence}", ROOTS: str(root)}
        made.settler.answered(made.job(sequence, headers=headers), ())
    assert made.broker.published == []
    (turn,) = turns
    turn()
    assert [one.headers[ROOTS] for one in made.broker.published] == [str(ABOVE), str(other)]
    assert [told.id for told in records(made)] == ["m1", "m3", "m2"]
    made.broker.answer()
    assert made.broker.heard() == [("ack", 1), ("ack", 3)]
    made.broker.answer(error=PublishError("no"))
    assert made.broker.heard() == [("ack", 1), ("ack", 3), ("nak", 2)]


def test_no_more_together_than_a_message_may_hold() -> None:
    turns: list[Callable[[], None]] = []
    made, root = flow(turns=turns), root_of("number", "n", None)
    for sequence in range(1, 9):
        job = made.job(sequence, headers={MSG_ID: f"m{sequence}", ROOTS: str(root)})
        made.settler.answered(job, [Strange("x" * 40_000)])
        made.broker.answer(-1)
    for turn in turns:
        turn()
    sizes = [len(one.payload) for one in made.broker.unanswered]
    assert len(sizes) == 2
    assert max(sizes) < PIECE + 100
    made.broker.answer_all()
    assert [told.id for told in records(made)] == [f"m{n}" for n in range(1, 9)]
    assert len(made.broker.said) == 8
