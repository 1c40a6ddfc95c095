"""Job: the states of its life, and the time that its handler has worked."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.flow.job import HANDLING, SETTLED, STORING, WAITING, Interruption, Job, State
from mqinfer.flow.past import Past
from tests.support.flow import Delivered

TASK = cast("asyncio.Task[object]", object())


def job(**fields: Any) -> Job:
    made = Job(Delivered(**fields), 100.0, 100.0)
    made.open("s", None, None)
    return made


def in_state(state: State) -> Job:
    found = job()
    if state is not WAITING:
        found.begin(TASK, 101.0)
    if state is STORING:
        found.handled()
    if state is SETTLED:
        found.settle()
    assert found.state is state
    return found


def test_a_life() -> None:
    found = job()
    assert (found.state, found.started, found.task) == (WAITING, None, None)
    found.begin(TASK, 101.0)
    assert (found.state, found.started, found.task) == (HANDLING, 101.0, TASK)
    assert found.handled()
    assert found.state is STORING
    assert found.settle() is STORING
    assert found.state is SETTLED


@pytest.mark.parametrize("state", State)
def test_it_may_be_settled_from_every_state_and_says_from_which(state: State) -> None:
    found = in_state(state)
    assert found.settle() is state
    assert found.state is SETTLED


def test_what_was_settled_while_it_was_handled_does_not_wait_for_storing() -> None:
    found = in_state(HANDLING)
    found.settle()
    assert not found.handled()
    assert found.state is SETTLED


@given(st.lists(st.sampled_from(["handled", "settle"]), min_size=1))
def test_once_settled_it_stays_so(steps: list[str]) -> None:
    found = in_state(HANDLING)
    ends = 0
    for step in steps:
        if step == "handled":
            assert found.handled() == (ends == 0)
        else:
            ends += found.settle() is not SETTLED
    assert ends == ("settle" in steps)


def test_it_begins_again_as_if_it_had_not_begun() -> None:
    found = in_state(HANDLING)
    assert found.context is not None
    found.interrupted = Interruption.TIMEOUT
    found.context.waited = 40.0  # what it waited for a server the first time is paid for
    found.begin(TASK, 200.0)
    assert (found.state, found.started, found.interrupted) == (HANDLING, 200.0, None)
    assert found.busy(205.0) == 5.0


def test_waits_for_a_server_are_no_work() -> None:
    found = job()
    assert found.busy(500.0) == 0.0
    found.begin(TASK, 200.0)
    assert found.context is not None
    found.context.waited = 3.0
    assert found.busy(210.0) == 7.0
    found.context.waiting_since = 208.0  # and it waits again
    assert found.busy(210.0) == 5.0
    assert found.busy(300.0) == 5.0


def test_its_identity_is_what_its_headers_say_or_its_place() -> None:
    assert Job(Delivered(7), 0.0, 0.0).id == "t:7"
    assert Job(Delivered(7, headers={"Nats-Msg-Id": "a"}), 0.0, 0.0).id == "a"
    assert job(headers={"Nats-Msg-Id": "a", "Mq-Id": "b"}).id == "b"


def test_the_handler_sees_the_delivery() -> None:
    headers = {"Mq-Ancestors": "x y", "Mq-Models": "leaf=3"}
    found = job(sequence=7, attempt=2, published=5_000_000_000, headers=headers)
    context = found.context
    assert context is not None
    assert (context.id, context.stage, context.run) == ("t:7", "s", None)
    assert (context.sequence, context.attempt, context.subject) == (7, 1, "t.number")
    context.past = Past(failures=2, tries=2, unexplained=1)
    assert (context.attempt, found.past.failures) == (4, 2)
    assert (context.models, context.published) == ({"leaf": "3"}, 5.0)
    assert found.ancestors == ("x", "y")
    assert "t:7" not in repr(Job(Delivered(7), 0.0, 0.0))
    assert "being handled, unpublished=0" in repr(in_state(HANDLING))
