"""An app with an endpoint whose workers die between two steps, for `tests/requests/kills.py`.

    REQUESTS_KILL=25 python -m mqinfer worker tests.support.requests_app:app

dies at its 25th step: the moment before something is published, before it is known that it is
stored, or before a message is acknowledged. What comes of a request follows from its number.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from mqinfer import App, Context, Message, Reject, plan
from mqinfer.backoff import Backoff
from tests.support.deaths import dying

ACK_WAIT = 3.0  # seconds: what a dead worker had comes again soon
plan.TRACKER_LIMITS = replace(plan.TRACKER_LIMITS, ack_wait=ACK_WAIT)
plan.DEADLINE_LIMITS = replace(plan.DEADLINE_LIMITS, ack_wait=ACK_WAIT)
app = App("asked")
SOON = Backoff(initial=0.02, maximum=0.1)


class Photo(Message):
    n: int


class Leaf(Message):
    n: int
    i: int


class Grade(Message):
    n: int
    i: int


@dataclass
class Truth:
    """What a request must end with."""

    status: str
    answers: tuple[Grade, ...]
    errors: int


def fan(n: int) -> int:
    """How many messages come of a request: 0 to 50."""
    return n * 7 % 51 if n % 4 else n % 3


def rejected(n: int, i: int) -> bool:
    return (n + i) % 29 == 4


def truth(n: int) -> Truth:
    """What a request must end with."""
    numbers = range(fan(n))
    answers = tuple(Grade(n, i) for i in numbers if not rejected(n, i))
    errors = sum(rejected(n, i) for i in numbers)
    status = "succeeded" if not errors else "partial" if answers else "failed"
    return Truth(status, answers, errors)


@app.stage(ack_wait=ACK_WAIT, backoff=SOON)
async def cut(photo: Photo, ctx: Context) -> list[Leaf]:
    if photo.n % 11 == 3 and ctx.attempt == 1:
        raise ValueError("once")
    return [Leaf(photo.n, i) for i in range(fan(photo.n))]


@app.stage(ack_wait=ACK_WAIT, backoff=SOON)
async def grade(leaf: Leaf, ctx: Context) -> Grade:
    if rejected(leaf.n, leaf.i):
        raise Reject("too dark")
    if (leaf.n + leaf.i) % 17 == 3 and ctx.attempt == 1:
        raise ValueError("once")
    return Grade(leaf.n, leaf.i)


app.endpoint("grade", Photo, answers=Grade, deadline="1h", keep="1h")

if steps := int(os.environ.get("REQUESTS_KILL", "0")):
    dying(steps)
