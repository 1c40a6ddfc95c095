"""Which messages are renewed, interrupted or let go: by the clock, and by whose they are."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mqinfer.flow.job import HANDLING, STORING, WAITING, Interruption, Job
from mqinfer.flow.overdue import interrupt, overdue
from mqinfer.flow.policy import Policy
from mqinfer.stage import Limits
from tests.support.flow import Delivered, Owned

LIMITS = Limits(ack_wait=30.0, timeout=60.0)
START = 100.0


class Task:
    """What an asyncio task is here: something that can be cancelled."""

    def __init__(self) -> None:
        self.cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1


def job_of(sequence: int = 1, task: Any = None, *, now: float = START) -> Job:
    job = Job(Delivered(sequence), now, now)
    job.open("s", None, None)
    if task is not None:
        job.begin(task, now)
    return job


@pytest.mark.parametrize("state", [WAITING, HANDLING, STORING])
def test_the_server_hears_of_a_message_after_a_third_of_ack_wait(state: Any) -> None:
    job = job_of()
    job.state = state
    assert overdue([job], LIMITS, None, START + 9.9).silent == []
    assert overdue([job], LIMITS, None, START + 10.0).silent == [job]
    job.pulsed = START + 10.0
    assert overdue([job], LIMITS, None, START + 19.9).silent == []


def test_what_is_anothers_is_not_renewed_and_its_handler_is_interrupted() -> None:
    policy, task = Owned(), Task()
    waiting, handled, ours = job_of(1), job_of(2, task), job_of(3)
    policy.lost |= {1, 2}
    found = overdue([waiting, handled, ours], LIMITS, policy, START + 20.0)
    assert found.silent == [ours]
    assert found.lost == [waiting]
    assert found.late == {task: Interruption.NOT_OURS}
    # That it is another's says more than that it is late.
    found = overdue([handled], LIMITS, policy, START + 1_000.0)
    assert found.late == {task: Interruption.NOT_OURS}


def test_what_a_policy_has_not_renewed_for_long_is_silent() -> None:
    class Heard(Policy):
        def heard(self, job: Job) -> float:
            return START

    job = job_of()
    job.pulsed = START + 15.0
    assert overdue([job], LIMITS, None, START + 20.0).silent == []
    assert overdue([job], LIMITS, Heard(), START + 20.0).silent == [job]


def test_a_handler_that_ran_past_its_timeout_is_late_once() -> None:
    task: Any = Task()
    job = job_of(1, task)
    assert overdue([job], LIMITS, None, START + 60.0).late == {}
    found = overdue([job], LIMITS, None, START + 60.1)
    assert found.late == {task: Interruption.TIMEOUT}
    interrupt([job], found.late)
    assert job.interrupted is Interruption.TIMEOUT
    assert task.cancelled == 1
    assert overdue([job], LIMITS, None, START + 90.0).late == {}


def test_waiting_for_a_server_and_progress_lengthen_the_time() -> None:
    task: Any = Task()
    job = job_of(1, task)
    assert job.context is not None
    job.context.pause(START + 10.0)  # goes on waiting
    assert overdue([job], LIMITS, None, START + 1_000.0).late == {}
    job.context.resume(START + 1_000.0)
    assert overdue([job], LIMITS, None, START + 1_050.0).late == {}
    assert overdue([job], LIMITS, None, START + 1_051.0).late == {task: Interruption.TIMEOUT}
    job.context.progress()
    assert overdue([job], LIMITS, None, START + 1_051.0).late == {}
    assert job.started == START + 1_051.0


def test_a_batch_is_as_busy_as_that_of_it_which_waited_longest() -> None:
    task: Any = Task()
    jobs = [job_of(sequence, task) for sequence in (1, 2, 3)]
    assert jobs[1].context is not None
    jobs[1].context.waited = 30.0
    assert overdue(jobs, LIMITS, None, START + 90.0).late == {}
    found = overdue(jobs, LIMITS, None, START + 90.1)
    assert found.late == {task: Interruption.TIMEOUT}
    interrupt(jobs, found.late)
    assert [job.interrupted for job in jobs] == [Interruption.TIMEOUT] * 3
    assert task.cancelled == 1


def test_why_it_was_interrupted_at_first_stays() -> None:
    """As of a canceled request, whose handler does not end at once."""
    task: Any = Task()
    job = job_of(1, task)
    job.interrupted = Interruption.CANCELED
    interrupt([job], {task: Interruption.TIMEOUT})
    assert job.interrupted is Interruption.CANCELED


async def test_a_real_task_is_cancelled() -> None:
    task = asyncio.create_task(asyncio.Event().wait())
    await asyncio.sleep(0)
    job = job_of(1, task)
    found = overdue([job], LIMITS, None, START + 61.0)
    interrupt([job], found.late)
    with pytest.raises(asyncio.CancelledError):
        await task
