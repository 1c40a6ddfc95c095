"""Joins below which a stage does something besides: it sets timers."""

from __future__ import annotations

from mqinfer import App, Context, Message
from mqinfer.identity import ROOTS
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until


class Photo(Message):
    n: int


class Leaf(Message):
    n: int


class Grade(Message):
    n: int


class Report(Message):
    n: int
    grades: list[int]


async def test_what_comes_of_a_timer_is_not_waited_for(nats: Settings) -> None:
    app = App("plants")

    @app.stage(later=Leaf)
    async def cut(photo: Photo, ctx: Context) -> Leaf:
        await ctx.later(Leaf(100 + photo.n), after=0.2)
        await ctx.later(Leaf(200 + photo.n), after="1h")
        return Leaf(photo.n)

    @app.stage
    async def grade(leaf: Leaf) -> Grade:
        return Grade(leaf.n)

    @app.join(Photo, of=Grade)
    async def report(photo: Photo, grades: list[Grade]) -> Report:
        return Report(photo.n, [grade.n for grade in grades])

    async with Harness(app, nats) as harness:
        await harness.publish(Photo(1))
        await harness.drain()
        assert await harness.messages(Report) == [Report(1, [1])]
        assert await harness.timers("cut")  # that of the hour, at least

        async def come() -> bool:
            return Leaf(101) in await harness.messages(Leaf)

        await until(come, "the timer")
        await harness.drain()
        assert sorted(one.n for one in await harness.messages(Grade)) == [1, 101]
        assert await harness.messages(Report) == [Report(1, [1])]
        leaves = await harness.stored(subject="plants.leaf")
        assert [ROOTS in one.headers for one in leaves] == [True, False]
