"""Settler: whatever the stream answers, in whatever order, a message has one end in its time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.backoff import Backoff
from mqinfer.errors import (
    DecodeError,
    HandlerTimeout,
    PayloadTooLarge,
    PublishError,
    Reject,
    Retry,
    Snooze,
    Unavailable,
)
from mqinfer.flow.deadletter import KIND
from mqinfer.flow.job import HANDLING, SETTLED, Job
from mqinfer.flow.policy import Policy
from mqinfer.flow.settler import DEAD_LETTER_RETRY
from mqinfer.identity import output_id
from mqinfer.message import Message
from tests.support.flow import Double, Flow, Number, Strange

EVERY_SECOND = Backoff(initial=1.0, factor=1.0, jitter=0.0)


async def handler(number: Number) -> list[Double | Strange]:
    raise AssertionError("nobody calls it")


def flow(policy: Policy | None = None, **limits: Any) -> Flow:
    return Flow(handler, policy=policy, **{"attempts": 3, "backoff": EVERY_SECOND, **limits})


class Another(Policy):
    """A message that is another worker's since `lost`; an answer has `beside` beside it."""

    def __init__(self, beside: int = 0, *, lost: bool = False) -> None:
        self.lost = lost
        self.beside = beside
        self.gone: list[Job] = []

    def owns(self, job: Job, now: float) -> bool:
        return not self.lost

    def after_answer(self, job: Job, outputs: int) -> list[Message]:
        return [Number(outputs)] * self.beside

    def left(self, job: Job) -> None:
        self.gone.append(job)


# --- answered -----------------------------------------------------------------------------------

answers = st.lists(
    st.tuples(st.integers(0, 99), st.sampled_from(["stored", "repeat", "refused", "too large"])),
    min_size=30,
    max_size=30,
)
ERRORS = {"refused": PublishError("full"), "too large": PayloadTooLarge("large")}


@given(st.integers(0, 6), st.integers(0, 2), st.booleans(), answers)
def test_a_message_ends_once_and_only_after_all_its_outputs(
    outputs: int, beside: int, while_handled: bool, answers: list[tuple[int, str]]
) -> None:
    made = flow(Another(beside))
    job, broker = made.job(), made.broker
    chunk = 2 if while_handled else 0
    if chunk:  # a generator publishes as it runs, and the stream may answer before it ends
        job.unpublished += 1
        made.settler.emit_some(job, [Double(0)] * chunk, 0)
        which, _ = answers[0]
        broker.answer(which % len(broker.unanswered))
        assert broker.said == []
    made.settler.answered(job, [Double(0)] * outputs, chunk)
    if chunk:
        assert len(broker.published) == chunk + outputs + beside
    problems = []
    for which, how in answers:
        if not broker.unanswered:
            break
        assert broker.said == []
        problems += [how] if how in ERRORS else []
        broker.answer(which % len(broker.unanswered), ERRORS.get(how), how == "repeat")
        if broker.subjects()[-1] == "dead.t.s":
            broker.answer()
    (said,) = broker.heard()
    if not problems:
        assert said == ("ack", 1)
    else:
        assert said == ("nak" if problems[0] == "refused" else "term", 1)
    assert [left for left, _ in made.left] == [job]
    assert job.state is SETTLED


def test_nothing_to_publish_is_acknowledged_at_once() -> None:
    made = flow()
    made.settler.answered(made.job(), ())
    assert made.broker.said == [("ack", 1, None)]
    assert (made.metrics.completed, made.metrics.outputs_published) == (1, 0)


def test_an_answer_during_the_publishing_is_not_the_last_one() -> None:
    """A publish may be refused before it returns, when it is known to be too large."""
    made = flow()
    publish = made.broker.publish

    def at_once(*arguments: Any) -> None:
        publish(*arguments)
        made.broker.answer()

    made.broker.publish = at_once
    made.settler.answered(made.job(), [Double(1), Double(2)])
    assert len(made.broker.published) == 2
    assert made.broker.heard() == [("ack", 1)]


def test_what_is_beside_an_answer_is_numbered_downwards() -> None:
    made = flow(Another(beside=1))
    made.settler.answered(made.job(), [Double(1), Double(2)])
    ids = [one.headers["Nats-Msg-Id"] for one in made.broker.published]
    assert ids == [output_id("t:1", "s", None, index) for index in (0, 1, -1)]
    assert made.broker.published[-1].payload == b'{"value":2}'  # so many outputs there were
    assert made.metrics.outputs_published == 2


def test_an_output_that_cannot_be_encoded_leaves_no_sibling_on_the_stream() -> None:
    made = flow(Another(beside=1))
    made.settler.answered(made.job(), [Double(1), Strange(object()), Double(3)])
    assert made.broker.published == []
    assert made.broker.said == [("nak", 1, 1.0)]
    made.settler.answered(made.job(2, attempt=3), [Strange(object())])
    made.broker.answer()
    assert made.broker.heard()[1:] == [("term", 2)]
    assert [one.headers[KIND] for one in made.broker.published] == ["failed"]


def test_all_outputs_are_counted_also_those_published_on_the_way() -> None:
    made = flow()
    job = made.job()
    job.unpublished += 1
    made.settler.emit_some(job, [Double(1)] * 4, 0)
    made.settler.answered(job, [Double(1)], 4)
    made.settler.answered(made.job(2), [Double(1), Strange(object())])
    assert made.metrics.outputs_published == 5  # none of the second message's


# --- not answered -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "attempt", "ends"),
    [
        (ValueError("x"), 1, ("nak", 1.0)),
        (ValueError("x"), 2, ("nak", 1.0)),
        (ValueError("x"), 3, ("term", "failed")),
        (ValueError("x"), 9, ("term", "failed")),
        (HandlerTimeout("x"), 1, ("nak", 1.0)),
        (HandlerTimeout("x"), 3, ("term", "timeout")),
        (Retry("x"), 1, ("nak", 1.0)),
        (Retry("x", after=7.0), 2, ("nak", 7.0)),
        (Retry("x", after=0.0), 2, ("nak", 0.0)),
        (Retry("x"), 3, ("term", "failed")),
        (Retry("x", after=7.0), 3, ("nak", 7.0)),  # the other side has said when: no failure
        (Snooze("x", after=7.0), 3, ("nak", 7.0)),
        (Reject("x"), 1, ("term", "rejected")),
        (DecodeError("x"), 1, ("term", "decode")),
        (Unavailable("x"), 1, ("nak", 1.0)),
        (Unavailable("x"), 3, ("nak", 1.0)),
        (Unavailable("x"), 500, ("nak", 1.0)),
    ],
)
def test_what_becomes_of_a_failure(
    error: Exception, attempt: int, ends: tuple[str, float | str]
) -> None:
    made = flow()
    made.settler.failed(made.job(attempt=attempt), error)
    what, detail = ends
    if what == "nak":
        assert made.broker.said == [("nak", 1, detail)]
        asked = getattr(error, "after", None) is not None
        assert (made.metrics.retries, made.metrics.snoozes) == (not asked, asked)
    else:
        assert made.broker.said == []  # not before its dead letter is stored
        assert made.broker.subjects() == ["dead.t.s"]
        assert made.broker.published[0].headers[KIND] == detail
        made.broker.answer()
        assert made.broker.said == [("term", 1, f"dead letter: {detail}")]
        assert +Counter(made.metrics.deaths) == {detail: 1}
    assert len(made.left) == 1


def test_a_dead_letter_that_cannot_be_stored_is_tried_again_later() -> None:
    made = flow()
    made.settler.dead(made.job(), ValueError("x"))
    made.broker.answer(error=PublishError("full"))
    assert made.broker.said == [("nak", 1, DEAD_LETTER_RETRY)]
    assert (sum(made.metrics.deaths.values()), made.metrics.retries) == (0, 1)


def test_what_reads_dead_letters_writes_none() -> None:
    made = flow()
    made.make_settler(dead=False).dead(made.job(), Reject("x"))
    assert made.broker.published == []
    assert made.broker.said == [("term", 1, "dead letter: rejected")]


def test_while_a_dead_letter_is_on_its_way_no_output_settles_its_message() -> None:
    made = flow()
    job = made.job()
    made.settler.emit_some(job, [Double(1)], 0)
    made.settler.dead(job, ValueError("x"))
    made.broker.answer(0)
    assert made.broker.said == []
    made.broker.answer(0)
    assert made.broker.heard() == [("term", 1)]


# --- once ---------------------------------------------------------------------------------------

ENDS = {
    "answered": lambda settler, job: settler.answered(job, ()),
    "skipped": lambda settler, job: settler.skipped(job),
    "failed": lambda settler, job: settler.failed(job, ValueError("x")),
    "rejected": lambda settler, job: settler.failed(job, Reject("x")),
    "hand_back": lambda settler, job: settler.hand_back(job),
}


@given(st.lists(st.sampled_from(sorted(ENDS)), min_size=1, max_size=6), st.booleans())
def test_whatever_is_said_about_a_message_the_first_stands(ends: list[str], at_once: bool) -> None:
    made = flow()
    job = made.job()
    for end in ends:
        ENDS[end](made.settler, job)
        if at_once:
            made.broker.answer_all()
    made.broker.answer_all()
    assert len(made.broker.said) == 1
    assert [left for left, _ in made.left] == [job]
    first = {"answered": "ack", "skipped": "ack", "rejected": "term"}.get(ends[0], "nak")
    if at_once or ends[0] != "rejected":
        assert made.broker.heard() == [(first, 1)]


@pytest.mark.parametrize("end", sorted(ENDS))
def test_nothing_is_said_about_what_is_another_workers(end: str) -> None:
    policy = Another(lost=True)
    made = flow(policy)
    job = made.job()
    ENDS[end](made.settler, job)
    assert (made.broker.said, made.broker.published) == ([], [])
    assert policy.gone == [job]
    assert [left for left, _ in made.left] == [job]


@pytest.mark.parametrize("end", ["outputs", "dead letter"])
def test_nor_when_it_became_so_while_something_was_stored(end: str) -> None:
    policy = Another()
    made = flow(policy)
    job = made.job()
    if end == "outputs":
        made.settler.answered(job, [Double(1)])
    else:
        made.settler.dead(job, ValueError("x"))
    policy.lost = True
    made.broker.answer()
    assert made.broker.said == []
    assert policy.gone == [job]


def test_it_says_whether_outputs_were_being_stored() -> None:
    made = flow()
    first, second = made.job(1), made.job(2)
    for job in (first, second):
        job.state = HANDLING
        made.settler.answered(job, [Double(1)])
    first.handled()
    made.broker.answer_all()
    assert made.left == [(first, True), (second, False)]


def test_what_never_was_a_job_is_acknowledged() -> None:
    made = flow()
    made.settler.passed_over(made.job().delivery)
    assert (made.broker.heard(), made.left) == ([("ack", 1)], [])
