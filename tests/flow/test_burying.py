"""A message without an answer ends once its letter, or what stands in its place, is stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from mqinfer.errors import DecodeError, Reject, Unavailable
from mqinfer.flow.burying import Burying
from mqinfer.flow.deadletter import KIND
from mqinfer.flow.job import Job
from mqinfer.flow.policy import Policy
from mqinfer.identity import MSG_ID, RUN, output_id
from mqinfer.message import Message
from mqinfer.metrics import StageMetrics
from tests.support.flow import Delivered, Double, Flow, Number

GONE = Unavailable("gone")


class Instead(Policy):
    """Of what is rejected, these messages stand in the letter's place."""

    def __init__(self, *messages: Message):
        self.messages = messages

    def instead(self, job: Job, error: BaseException) -> Sequence[Message]:
        return self.messages if isinstance(error, Reject) else ()


async def handler(number: Number) -> list[Double]:
    raise AssertionError("nobody calls it")


class Stage:
    """The letters of one stage, and what those were told who had them stored."""

    def __init__(self, policy: Policy | None = None, subject: str | None = "letters"):
        self.flow = Flow(handler)
        self.broker = self.flow.broker
        self.metrics = StageMetrics()
        self.told: list[Exception | None] = []
        self.burying = Burying(
            "s",
            subject,
            self.broker,
            self.flow.settler.emitter,
            metrics=self.metrics,
            run="r",
            policy=policy,
        )

    def store(self, job: Job, error: BaseException) -> None:
        self.burying.store(job, error, self.told.append)


def test_it_ends_when_the_letter_is_stored() -> None:
    stage, error = Stage(), Reject("no leaf on it")
    job = stage.flow.job(7)
    stage.store(job, error)
    assert stage.told == []
    assert stage.broker.subjects() == ["letters"]
    headers = stage.broker.published[0].headers
    assert (headers[KIND], headers[RUN]) == ("rejected", "r")
    stage.broker.answer()
    assert stage.told == [None]
    assert stage.broker.said == [], "whoever had it stored says when it ends"
    stage.burying.ended(job, error)
    assert stage.broker.said == [("term", 7, "dead letter: rejected")]
    assert stage.metrics.deaths["rejected"] == 1


def test_why_a_letter_is_not_stored_is_told() -> None:
    stage = Stage()
    stage.store(stage.flow.job(), ValueError("x"))
    stage.broker.answer(error=GONE)
    assert stage.told == [GONE]
    assert sum(stage.metrics.deaths.values()) == 0


def test_a_letter_that_is_there_already_is_stored() -> None:
    """As when its worker died between the letter and the end of its message."""
    stage = Stage()
    stage.store(stage.flow.job(), ValueError("x"))
    stage.broker.answer(repeat=True)
    assert stage.told == [None]


def test_what_reads_dead_letters_has_none_itself() -> None:
    stage, error = Stage(subject=None), ValueError("x")
    job = stage.flow.job(3)
    stage.store(job, error)
    assert stage.told == [None]
    assert stage.broker.published == []
    stage.burying.ended(job, error)
    assert stage.broker.said == [("term", 3, "dead letter: failed")]
    assert (stage.metrics.deaths["failed"], stage.metrics.dropped) == (1, 1)


def test_what_stands_in_its_place_is_stored_whole_and_the_message_is_acknowledged() -> None:
    stage, error = Stage(Instead(Double(1), Double(2))), Reject("too late")
    job = stage.flow.job(7)
    stage.store(job, error)
    assert stage.broker.subjects() == ["t.double", "t.double"]
    # Numbered downwards, so that no output has the identity of one.
    identities = [one.headers[MSG_ID] for one in stage.broker.published]
    assert identities == [output_id(job.id, "s", None, number) for number in (-2, -1)]
    stage.broker.answer(1)
    assert stage.told == []
    stage.broker.answer(0)
    assert stage.told == [None]
    stage.burying.ended(job, error)
    assert stage.broker.heard() == [("ack", 7)]
    assert stage.metrics.skips == 1
    assert sum(stage.metrics.deaths.values()) == 0


@pytest.mark.parametrize("which", [0, 1])
def test_a_part_that_is_not_stored_is_told_once(which: int) -> None:
    stage = Stage(Instead(Double(1), Double(2)))
    stage.store(stage.flow.job(), Reject("too late"))
    stage.broker.answer(which, error=GONE)
    stage.broker.answer(0, error=Unavailable("later") if which else None)
    assert stage.told == [GONE]


def test_what_a_policy_says_nothing_of_has_its_letter() -> None:
    stage = Stage(Instead(Double(1)))
    stage.store(stage.flow.job(), ValueError("x"))
    assert stage.broker.subjects() == ["letters"]


def test_a_message_that_was_never_read_has_its_letter() -> None:
    """Nothing could be made of it: not even whose child it would be."""
    stage = Stage(Instead(Double(1)))
    job: Any = Job(Delivered(data=b"\xff"), 0.0, 0.0)
    stage.store(job, DecodeError("no JSON"))
    assert stage.broker.subjects() == ["letters"]
    assert stage.broker.published[0].payload == b"\xff"
