"""Joins on a server that takes small messages only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from mqinfer import App, Context, Message
from mqinfer.completion.progress import outputs_in
from mqinfer.testing import Harness, nats_only

LARGEST = 1 << 16


class Photo(Message):
    n: int


class Leaf(Message):
    i: int
    text: str


class Grade(Message):
    i: int


async def test_the_bounds_are_lower_and_nothing_waits_for_ever(tmp_path: Path) -> None:
    app, given = App("plants"), dict[int, tuple[int, int, str]]()
    most = outputs_in(LARGEST)
    assert most == 1_024

    @app.stage(timeout=120)
    async def cut(photo: Photo) -> AsyncIterator[Leaf]:
        for i in range(photo.n):
            yield Leaf(i, "x" * 100)

    @app.stage
    async def grade(leaf: Leaf) -> Grade:
        return Grade(leaf.i)

    @app.join(Photo, of=(Leaf, Grade))
    async def report(photo: Photo, found: list[Leaf | Grade], ctx: Context) -> None:
        leaves = [one.i for one in found if isinstance(one, Leaf)]
        grades = [one.i for one in found if isinstance(one, Grade)]
        assert leaves == list(range(len(leaves)))
        given[photo.n] = (len(leaves), len(grades), ctx.incomplete)

    async with (
        nats_only(tmp_path, nats_max_payload=LARGEST) as settings,
        Harness(app, settings) as harness,
    ):
        await harness.publish(Photo(3), Photo(most), Photo(most + 1))
        await harness.drain()
        assert await harness.dead() == []
    assert given[3] == (3, 3, "")
    assert given[most] == (most, most, "")
    assert given[most + 1][2] == "too many"
