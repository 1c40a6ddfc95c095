"""A stage whose model is changed between live and run, and its rows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mqinfer import App, Context, Row
from mqinfer.settings import Settings
from mqinfer.testing import Harness
from tests.support.replay import Number


class Graded(Row, frozen=True, table="graded", order_by="value"):
    value: int
    grade: str
    score: float


@dataclass
class Grader:
    """What the stage of `grading` answers; tests change it between live and run."""

    version: int = 1
    fails: int | None = 11  # version 2 cannot answer this

    def rows(self, value: int) -> list[Graded]:
        if self.version == 1:
            return [Graded(value, "ill" if value % 2 else "well", 1.0 * value)]
        if value % 5 == 0:
            return []  # the new model says nothing of these
        rows = [Graded(value, "ill" if value % 3 else "well", 2.0 * value)]
        return rows * 2 if value == 7 else rows  # and more of this one


def grading(name: str) -> tuple[App, Grader]:
    app, grader = App(name), Grader()

    @app.stage(attempts=1)
    async def grade(number: Number, ctx: Context) -> AsyncIterator[Graded]:
        ctx.models["grader"] = str(grader.version)  # as a call of that model would say
        if grader.version == 2 and number.value == grader.fails:
            raise ValueError("it cannot")
        for row in grader.rows(number.value):
            yield row

    return app, grader


@asynccontextmanager
async def graded(name: str, nats: Settings, url: str) -> AsyncIterator[tuple[Harness, Grader]]:
    """Twenty numbers with their live rows."""
    settings = Settings.load({}, nats_url=nats.nats_url, blobs=nats.blobs, clickhouse_url=url)
    app, grader = grading(name)
    async with Harness(app, settings) as harness:
        await harness.publish(
            *(Number(value) for value in range(20)), ids=[f"{name}-{i}" for i in range(20)]
        )
        await harness.drain()
        yield harness, grader
