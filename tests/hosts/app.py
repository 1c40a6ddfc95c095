"""The app whose workers are on several hosts: one stage that remembers, and one that does not."""

from __future__ import annotations

from mqinfer import App, Message, State
from mqinfer.backoff import Backoff

app = App("hosts", replicas=3, partitions=4)
SOON = Backoff(initial=0.02, maximum=0.2)
ACK_WAIT = 4.0  # seconds: what a host that is cut off had comes again soon


class Step(Message, key="position", ordered=True):
    position: str
    number: int


class Counted(Message, key="position"):
    position: str
    number: int
    count: int


class Number(Message):
    number: int


class Double(Message):
    number: int


class Count(State):
    count: int = 0


@app.stage(ack_wait=ACK_WAIT, backoff=SOON)
async def count(step: Step, state: Count) -> Counted:
    state.count += 1
    return Counted(step.position, step.number, state.count)


@app.stage(ack_wait=ACK_WAIT, backoff=SOON)
async def double(number: Number) -> Double:
    return Double(2 * number.number)
