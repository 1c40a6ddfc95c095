"""An app for `tests/worker/test_renewals.py`: its handlers block the event loop when told to.

    BLOCKING_LOG=log BLOCKING_HELD=20 python -m mqinfer worker tests.support.blocking_app:app

A worker that is to hold so many messages lets none of them go on before it has begun with all. Then
it lets go on all at once, and the one in the middle blocks the loop until the file `<log>.go` is
there: of those before it the answers are said and cannot leave, those behind it wait. Without
BLOCKING_HELD nobody blocks.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from mqinfer import App, Context, Message

ACK_WAIT = 5.0
LONG = 120.0  # seconds; only a test that fails blocks for so long
PARTITIONS = 8

app = App("blocking", partitions=PARTITIONS)
here: list[int] = []
all_here = asyncio.Event()


class Task(Message, subject="task"):
    n: int


class Leaf(Message, subject="leaf", key="n", ordered=True):
    n: int
    step: int = 0


class Done(Message, subject="done"):
    n: int


def note(what: str, n: int, attempt: int) -> None:
    with Path(os.environ["BLOCKING_LOG"]).open("a") as log:
        log.write(f"{what} {os.getpid()} {n} {attempt}\n")


async def work(n: int, attempt: int) -> None:
    note("begin", n, attempt)
    held = int(os.environ.get("BLOCKING_HELD", "0"))
    if len(here) < held:
        here.append(n)
        if len(here) == held:
            all_here.set()
        await all_here.wait()
        if n == here[held // 2]:
            block(n)
    note("end", n, attempt)


def block(n: int) -> None:
    note("block", n, 0)
    end = time.monotonic() + LONG
    while not Path(os.environ["BLOCKING_LOG"] + ".go").exists() and time.monotonic() < end:
        time.sleep(0.02)


@app.stage(ack_wait=ACK_WAIT)
async def hold(task: Task, ctx: Context) -> Done | None:
    await work(task.n, ctx.attempt)
    return Done(task.n) if task.n % 2 else None


@app.stage(ack_wait=ACK_WAIT, timeout=8.0)
async def hang(task: Task, ctx: Context) -> Done:
    await work(task.n, ctx.attempt)
    return Done(task.n)


@app.stage(ack_wait=ACK_WAIT)
async def follow(leaf: Leaf, ctx: Context) -> Done | None:
    await work(10 * leaf.n + leaf.step, ctx.attempt)
    return Done(leaf.n) if leaf.n % 2 else None
