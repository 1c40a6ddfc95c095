"""Poison: every message around it is answered, and it ends as a dead letter with its story."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest

from mqinfer import App, Column, Context, Row
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.flow.deadletter import ATTEMPTS, ERROR
from mqinfer.operate.letters import Letter
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from tests.support.models import save_picky
from tests.support.triton import serving

from .support import SOON, Double, Number, settings_with

POISON = 7


def attempts_of(letter: Letter) -> int:
    """What the dead letter says."""
    return int(letter.headers[ATTEMPTS])


@pytest.mark.parametrize("attempts", [1, 3])
async def test_one_that_raises_in_a_batch(nats: Settings, attempts: int) -> None:
    app = App("raises")

    @app.stage(batch_size=16, batch_wait=0.1, attempts=attempts, backoff=SOON)
    async def double(numbers: list[Number]) -> list[Double]:
        if any(number.value == POISON for number in numbers):
            raise RuntimeError("seven")
        return [Double(number.value) for number in numbers]

    async with Harness(app, nats) as harness:
        await harness.publish(*(Number(value) for value in range(40)))
        await harness.drain()
        answers = sorted(answer.value for answer in await harness.messages(Double))
        assert answers == [value for value in range(40) if value != POISON]
        (letter,) = await harness.dead()
        assert (letter.kind, attempts_of(letter)) == ("failed", attempts)
        assert letter.headers[ERROR] == "RuntimeError"


@pytest.mark.parametrize("attempts", [1, 3])
async def test_one_that_hangs(nats: Settings, attempts: int) -> None:
    """Handlers of every shape side by side, as most of the time goes by in waiting."""
    never = threading.Event()
    try:
        async with asyncio.TaskGroup() as group:
            for shape in ("async", "thread", "batch", "batch in a thread"):
                group.create_task(one_that_hangs(nats, shape, attempts, never), name=shape)
    finally:
        never.set()


async def one_that_hangs(nats: Settings, shape: str, attempts: int, never: threading.Event) -> None:
    app = App(f"hangs-{shape.replace(' ', '-')}")
    limits: dict[str, Any] = {"timeout": 1.0, "attempts": attempts, "backoff": SOON}

    if shape == "async":

        @app.stage(name="double", **limits)
        async def one(number: Number) -> Double:
            if number.value == POISON:
                await asyncio.Event().wait()
            return Double(number.value)

    elif shape == "thread":

        @app.stage(name="double", concurrency=4, **limits)
        def two(number: Number) -> Double:
            if number.value == POISON:
                never.wait(300)
            return Double(number.value)

    elif shape == "batch":

        @app.stage(name="double", batch_size=16, batch_wait=0.1, **limits)
        async def three(numbers: list[Number]) -> list[Double]:
            if any(number.value == POISON for number in numbers):
                await asyncio.Event().wait()
            return [Double(number.value) for number in numbers]

    else:

        @app.stage(name="double", batch_size=16, batch_wait=0.1, **limits)
        def four(numbers: list[Number]) -> list[Double]:
            if any(number.value == POISON for number in numbers):
                never.wait(300)
            return [Double(number.value) for number in numbers]

    async with Harness(app, nats) as harness:
        await harness.publish(*(Number(value) for value in range(40)))
        await harness.drain()
        answers = sorted(answer.value for answer in await harness.messages(Double))
        assert answers == [value for value in range(40) if value != POISON], shape
        (letter,) = await harness.dead()
        assert (letter.kind, attempts_of(letter)) == ("timeout", attempts), shape
        assert "timeout of 1.0 s" in letter.reason


# --- one that kills its process -----------------------------------------------------------------

KILLER = """
import asyncio, os
from mqinfer import App, Message
from mqinfer.backoff import Backoff
from mqinfer.testing import *

class Number(Message, subject="number"):
    value: int

class Double(Message, subject="double"):
    value: int

class Slow(Message, subject="slow"):
    value: int

app = App("killer")
limits = dict(ack_wait=2.0, attempts={attempts}, backoff=Backoff(initial=0.05))

@app.stage(**limits{batch})
async def double({parameter}) -> {result}:
    {body}

@app.stage(**limits)
async def slow(number: Number) -> Slow:
    # A neighbour in another stage, still at work whenever the killer strikes.
    await asyncio.sleep(0.3)
    return Slow(number.value)
"""
ONE = "if number.value == 7: os._exit(9)\n    return Double(number.value)"
BATCH = (
    "if any(number.value == 7 for number in numbers): os._exit(9)\n"
    "    return [Double(number.value) for number in numbers]"
)


@pytest.mark.parametrize("batch", [False, True])
async def test_one_that_kills_its_worker(nats: Settings, tmp_path: Path, batch: bool) -> None:
    attempts = 2
    (tmp_path / "killer.py").write_text(
        KILLER.format(
            attempts=attempts,
            batch=", batch_size=8, batch_wait=0.05" if batch else "",
            parameter="numbers: list[Number]" if batch else "number: Number",
            result="list[Double]" if batch else "Double",
            body=BATCH if batch else ONE,
        )
    )
    sys.path.insert(0, str(tmp_path))
    try:
        import killer  # type: ignore[import-not-found]

        app: App = killer.app
        answer, slow = killer.Double, killer.Slow
        number = killer.Number
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("killer", None)
    environ = {
        **os.environ,
        "MQINFER_NATS_URL": nats.nats_url,
        "MQINFER_BLOBS": nats.blobs,
        "MQINFER_GRACE": "5",
    }
    log = (tmp_path / "worker.log").open("ab")
    async with Harness(app, nats) as harness:
        await harness.publish(*(number(value) for value in range(16)))
        deaths = 0

        async def supervise() -> None:
            nonlocal deaths
            while True:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "mqinfer", "worker", "killer:app",
                    cwd=tmp_path, env=environ, stdout=log, stderr=log,
                )  # fmt: skip
                try:
                    code = await process.wait()
                finally:
                    if process.returncode is None:
                        process.kill()
                        await process.wait()
                assert code == 9, (tmp_path / "worker.log").read_text()
                deaths += 1

        async with asyncio.TaskGroup() as group:
            task = group.create_task(supervise())

            async def quiet() -> bool:
                return [await harness.lag(name) for name in ("double", "slow")] == [0, 0]

            try:
                await until(quiet, "the end", 600)
            finally:
                task.cancel()
        log.close()
        neighbours = [value for value in range(16) if value != POISON]
        assert sorted(m.value for m in await harness.messages(answer)) == neighbours
        assert sorted(m.value for m in await harness.messages(slow)) == list(range(16))
        (letter,) = await harness.dead()
        assert letter.kind == "killed"
        assert b'"value":7' in letter.data
        # Twice as one of many, `attempts` times alone, and by halves of all 32 in between.
        assert attempts + 2 <= deaths <= attempts + 2 + 7
        assert attempts_of(letter) == deaths + 1  # the delivery that found it out is one more


# --- refused by Triton, refused by ClickHouse ----------------------------------------------------


class Tight(Row, table="tight", order_by="value"):
    """A row that not every number fits."""

    value: int
    small: Annotated[int, Column("UInt8")]


async def test_one_that_triton_refuses_and_one_that_clickhouse_refuses(
    nats: Settings, url: str, db: ClickHouse, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    save_picky(models, "picky")
    app = App("refused")
    picky = app.model("picky")

    @app.stage(attempts=2, backoff=SOON)
    async def double(number: Number, ctx: Context) -> Tight:
        width = 3 if number.value == POISON else 2
        answer = await picky(x=np.full(width, number.value, dtype=np.float32))
        small = 256 if number.value == 11 else int(answer["y"][0])
        return Tight(number.value, small)

    async with serving(tmp_path / "triton", models) as triton:
        settings = settings_with(nats, triton_url=triton.url, clickhouse_url=url)
        async with Harness(app, settings) as harness:
            await harness.publish(*(Number(value) for value in range(60)))
            await harness.drain("double", "sink-tight")
            rows = await db.query("SELECT value, small FROM tight ORDER BY value")
            assert [row["value"] for row in rows] == [v for v in range(60) if v not in (7, 11)]
            letters = {letter.headers["Mq-Dead-Stage"]: letter for letter in await harness.dead()}
            assert set(letters) == {"double", "sink-tight"}
            assert (letters["double"].kind, attempts_of(letters["double"])) == ("failed", 2)
            assert "triton refused" in letters["double"].reason
            assert letters["sink-tight"].kind == "rejected"
            assert "small" in letters["sink-tight"].reason
