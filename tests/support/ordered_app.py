"""An app for `tests/flow/test_ordered.py`: handlers write down what they begin."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from mqinfer import App, Context, Message
from mqinfer.backoff import Backoff

app = App("plants", partitions=4)


class Leaf(Message, key="position", ordered=True):
    position: str
    number: int


class Step(Message, key="position"):
    position: str
    number: int


def write_down(text: str) -> None:
    """One line, whole even if several processes write."""
    handle = os.open(os.environ["ORDERED_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(handle, f"{text}\n".encode())
    finally:
        os.close(handle)


def stand_still() -> None:
    """Stop this process if a test asks for it: here, what it begins is written down already.

    A signal from outside may come between the runner's last look at its claim and the line that a
    handler writes: then that line is written when the process goes on, and nobody can help it.
    """
    if (asked := Path(f"{os.environ['ORDERED_LOG']}.still.{os.getpid()}")).exists():
        asked.unlink()
        os.kill(os.getpid(), signal.SIGSTOP)


@app.stage(ack_wait=2.0, backoff=Backoff(initial=0.02, maximum=0.1))
async def follow(leaf: Leaf, ctx: Context) -> Step:
    write_down(f"begin {os.getpid()} {leaf.position} {leaf.number} {ctx.sequence}")
    stand_still()
    await asyncio.sleep(0.003)
    if leaf.number % 7 == 3 and ctx.attempt == 1:
        raise ValueError("not at the first attempt")
    write_down(f"end {os.getpid()} {leaf.position} {leaf.number} {ctx.sequence}")
    return Step(leaf.position, leaf.number)
