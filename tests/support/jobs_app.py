"""An app with an endpoint whose workers die between two steps, for `tests/jobs/`.

    JOBS_KILL=25 python -m mqinfer worker tests.support.jobs_app:app

dies at its 25th step; see `deaths`. What comes of a row follows from its number.
"""

from __future__ import annotations

import os
from dataclasses import replace

from mqinfer import App, Context, Message, Reject, plan
from mqinfer.backoff import Backoff
from mqinfer.jobs import state
from tests.support.deaths import dying

ACK_WAIT = 3.0  # seconds: what a dead worker had comes again soon
plan.TRACKER_LIMITS = replace(plan.TRACKER_LIMITS, ack_wait=ACK_WAIT)
plan.DEADLINE_LIMITS = replace(plan.DEADLINE_LIMITS, ack_wait=ACK_WAIT)
plan.JOBS_LIMITS = replace(plan.JOBS_LIMITS, ack_wait=ACK_WAIT)
state.LOST = 3.0  # type: ignore[misc]
app = App("jobbed")
SOON = Backoff(initial=0.02, maximum=0.1)


class Photo(Message):
    n: int


class Leaf(Message):
    n: int
    i: int


class Grade(Message):
    n: int
    i: int


def fan(n: int) -> int:
    """How many messages come of a row."""
    return n % 4


def rejected(n: int, i: int) -> bool:
    return (n + i) % 29 == 4


def truth(n: int) -> tuple[str, list[dict[str, int]], int]:
    """How a row must end: its status, answers, and how many errors."""
    answers = [{"n": n, "i": i} for i in range(fan(n)) if not rejected(n, i)]
    errors = fan(n) - len(answers)
    return ("succeeded" if not errors else "partial" if answers else "failed"), answers, errors


@app.stage(ack_wait=ACK_WAIT, backoff=SOON)
async def cut(photo: Photo, ctx: Context) -> list[Leaf]:
    if photo.n % 11 == 3 and ctx.attempt == 1:
        raise ValueError("once")
    return [Leaf(photo.n, i) for i in range(fan(photo.n))]


@app.stage(ack_wait=ACK_WAIT, backoff=SOON)
async def grade(leaf: Leaf) -> Grade:
    if rejected(leaf.n, leaf.i):
        raise Reject("too dark")
    return Grade(leaf.n, leaf.i)


app.endpoint("grade", Photo, answers=Grade)

if steps := int(os.environ.get("JOBS_KILL", "0")):
    dying(steps)
