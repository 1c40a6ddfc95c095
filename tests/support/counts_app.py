"""An app whose rows are counted, and whose processes die between two steps, for the tests' kills.

    COUNTS_KILL=25 python -m mqinfer worker tests.support.counts_app:app
    COUNTS_KILL=25 python -m tests.support.counts_app

dies at its 25th step: before and after each statement that ClickHouse is given, before something is
published, before it is known that it is stored, or before a message is acknowledged. The second one
seals, again and again, hours that are not over. What comes of a number follows from it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Any

from mqinfer import App, Confidence, Context, Label, Message, Row, plan, wiring
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.backoff import Backoff
from mqinfer.errors import MqinferError
from mqinfer.monitor.places import ensure_counts
from mqinfer.monitor.sealing import seal
from mqinfer.monitor.watched import watched
from mqinfer.settings import Settings
from mqinfer.tables.tables import TableSchema
from tests.support.deaths import at_each_step

SOON = 3.0  # seconds: what a dead worker had comes again soon
plan.SINK_LIMITS = replace(plan.SINK_LIMITS, ack_wait=SOON)
app = App("counted")


class Number(Message, subject="number"):
    value: int


class Guess(Row, frozen=True, table="counted_guess", order_by="value"):
    value: int
    label: Annotated[str, Label()]
    sure: Annotated[float, Confidence()]


def guesses(value: int, run: str | None) -> list[Guess]:
    """What comes of a number, live or in a run."""
    shift = 2 if run else 0
    return [
        Guess(value * 10 + part, f"k{(value + part + shift) % 5}", (value % 100) / 100)
        for part in range((value + shift) % 4)
    ]


@app.stage(ack_wait=SOON, backoff=Backoff(initial=0.02, maximum=0.1))
async def guess(number: Number, ctx: Context) -> AsyncIterator[Guess]:
    if number.value % 11 == 3 and ctx.attempt == 1:
        raise ValueError("once")
    for one in guesses(number.value, ctx.run):
        yield one


async def ensure(database: ClickHouse) -> TableSchema:
    """Have it counted."""
    return await ensure_counts(database, watched(app)[0][0], app.name)


async def sealed(database: ClickHouse) -> None:
    """Seal all hours, also the one that goes on."""
    await seal(database, watched(app)[0][0], await ensure(database), rest=-7200)


async def _seal_on() -> None:
    database = wiring.clickhouse(Settings.load())
    while True:
        try:
            await sealed(database)
        except MqinferError as error:
            print(error, flush=True)


def _dying(left: int) -> None:
    def step() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def between(plain: Callable[..., Awaitable[Any]]) -> Any:
        async def stepping(self: ClickHouse, *args: Any, **more: Any) -> Any:
            step()
            found = await plain(self, *args, **more)
            step()
            return found

        return stepping

    for name in ("insert", "command"):
        setattr(ClickHouse, name, between(getattr(ClickHouse, name)))
    at_each_step(step)


if steps := int(os.environ.get("COUNTS_KILL", "0")):
    _dying(steps)
if __name__ == "__main__":
    asyncio.run(_seal_on())
