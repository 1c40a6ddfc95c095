"""An app for `tests/faults/test_states.py`: its answers tell what its stage remembers."""

from __future__ import annotations

from mqinfer import App, Context, Message, Reject, State
from mqinfer.backoff import Backoff

app = App("states", partitions=8)


class Step(Message, key="position", ordered=True):
    position: str
    number: int


class Counted(Message, key="position"):
    position: str
    count: int
    total: int


class Count(State, ttl="1d"):
    count: int = 0
    total: int = 0


def rejected(number: int) -> bool:
    return number % 97 == 13


@app.stage(ack_wait=2.0, backoff=Backoff(initial=0.01, maximum=0.05))
async def count(step: Step, state: Count, ctx: Context) -> Counted | None:
    state.count += 1
    state.total += step.number
    if rejected(step.number):
        raise Reject("that one never")
    if step.number % 53 == 7 and ctx.attempt == 1:
        raise ValueError("not at the first attempt")
    answer = Counted(step.position, state.count, state.total)
    if step.number % 2:
        await ctx.emit(answer)
        return None
    return answer
