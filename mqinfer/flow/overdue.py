"""Overdue: which of a stage's messages are to be renewed, interrupted or let go now."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mqinfer.flow.job import WAITING, Interruption, Job

if TYPE_CHECKING:
    from mqinfer.flow.policy import Policy
    from mqinfer.stage import Limits


@dataclass(slots=True)
class Overdue:
    """What was found.

    Attributes:
        silent: the server has not heard of these for long.
        lost: nothing was done with these, and they are another worker's.
        late: tasks to be interrupted, and why.
    """

    silent: list[Job] = field(default_factory=list)
    lost: list[Job] = field(default_factory=list)
    late: dict[asyncio.Task[object], Interruption] = field(default_factory=dict)


def overdue(jobs: Iterable[Job], limits: Limits, policy: Policy | None, now: float) -> Overdue:
    """Look at every message.

    Args:
        jobs: of the stage.
        limits: of the stage.
        policy: of ordered or replayed work; None is plain work.
        now: monotonic seconds.
    """
    found = Overdue()
    pulse_before = now - limits.ack_wait / 3
    busy: dict[asyncio.Task[object], float] = {}
    for job in jobs:
        ours = True
        if policy is not None:
            ours = policy.owns(job, now)
            if not ours and job.state is WAITING:
                found.lost.append(job)
            job.pulsed = min(job.pulsed, policy.heard(job))
        # What is another's must not be renewed: the server would confirm it all the same.
        if ours and job.pulsed <= pulse_before:
            found.silent.append(job)
        if job.task is None or job.interrupted is not None or job.context is None:
            continue
        if not ours:
            found.late[job.task] = Interruption.NOT_OURS
        if job.context.take_progress(now):
            job.started = now
        # The messages of a batch share a task, and one of them has its waits and progress.
        busy[job.task] = min(busy.get(job.task, job.busy(now)), job.busy(now))
    for task, seconds in busy.items():
        if seconds > limits.timeout:
            found.late.setdefault(task, Interruption.TIMEOUT)
    return found


def interrupt(jobs: Iterable[Job], tasks: Mapping[asyncio.Task[object], Interruption]) -> None:
    """Cancel handlers; what that leads to is decided where the cancellation arrives."""
    for job in jobs:
        if job.task is not None:
            job.interrupted = job.interrupted or tasks.get(job.task)
    for task in tasks:
        task.cancel()
