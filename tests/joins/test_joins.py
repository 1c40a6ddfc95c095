"""Joins on a real nats-server: what they are given, whatever comes of a root."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec import field

from mqinfer import App, Context, Message, Reject, Row
from mqinfer.backoff import Backoff
from mqinfer.completion.waited import TRACKER
from mqinfer.identity import ANCESTORS, MSG_ID, ROOTS
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until

SOON = Backoff(initial=0.01, maximum=0.05)


class Photo(Message):
    n: int


class Leaf(Message):
    photo: int
    i: int


class Grade(Message):
    photo: int
    i: int
    by: str = "grade"


class Shape(Message):
    photo: int
    i: int
    text: str = ""


class Report(Message):
    photo: int
    grades: list[int]
    died: list[str] = field(default_factory=list)
    incomplete: str = ""
    missing: dict[str, int] = field(default_factory=dict)


def pipeline(app: App) -> None:
    """Photo -> leaves -> a grade each; the fourth leaf is rejected."""

    @app.stage
    async def cut(photo: Photo) -> list[Leaf]:
        return [Leaf(photo.n, i) for i in range(photo.n)]

    @app.stage(backoff=SOON)
    async def grade(leaf: Leaf, ctx: Context) -> Grade:
        if leaf.i == 3:
            raise Reject("too dark")
        if leaf.i == 4 and ctx.attempt == 1:
            raise ValueError("once")
        return Grade(leaf.photo, leaf.i)


def reporting(app: App, **options: Any) -> None:
    @app.join(Photo, of=Grade, **options)
    async def report(photo: Photo, grades: list[Grade], ctx: Context) -> Report:
        return Report(
            photo.n,
            [grade.i for grade in grades],
            [f"{one.stage} {one.kind} {one.reason}" for one in ctx.died],
            ctx.incomplete,
            ctx.missing,
        )


async def test_called_with_the_outputs_in_order_and_what_died(nats: Settings) -> None:
    app = App("plants")
    pipeline(app)
    reporting(app)
    async with Harness(app, nats) as harness:
        ids = await harness.publish(*map(Photo, range(7)))
        await harness.drain()
        reports = sorted(await harness.messages(Report), key=lambda one: one.photo)
        died = ["grade rejected too dark"]
        assert reports == [
            Report(n, [i for i in range(n) if i != 3], died if n > 3 else []) for n in range(7)
        ]
        stored = await harness.stored(subject="plants.report")
        assert sorted(one.headers[ANCESTORS].split()[0] for one in stored) == sorted(ids)
        assert all(ROOTS not in one.headers for one in stored)  # nobody waits for these
        told = await harness.stored(subject="plants.joined.report")
        assert len({one.headers[MSG_ID] for one in told}) == 7
        tombs = await harness.stored("KV_plants-roots")
        assert len(tombs) == 7
        assert max(len(one.data) for one in tombs) <= 16
        await harness.drain()
        assert len(await harness.messages(Report)) == 7


async def test_messages_below_no_root_have_no_header_and_no_record(nats: Settings) -> None:
    app = App("plants")
    pipeline(app)
    reporting(app)

    @app.stage
    async def other(shape: Shape) -> Report:
        return Report(shape.photo, [])

    async with Harness(app, nats) as harness:
        await harness.publish(Shape(1, 1), Leaf(5, 0))
        await harness.drain()
        assert await harness.stored("plants-settled") == []
        assert all(ROOTS not in one.headers for one in await harness.stored())


async def test_diamonds_tuples_of_types_and_several_joins_on_one_root(nats: Settings) -> None:
    app = App("plants")
    pipeline(app)
    reporting(app)
    given: dict[int, list[str]] = {}

    @app.stage
    async def shape(leaf: Leaf) -> AsyncIterator[Shape]:
        for part in "ab":
            yield Shape(leaf.photo, leaf.i, part)

    @app.stage
    async def also(shape: Shape) -> Grade | None:
        return Grade(shape.photo, 100 + shape.i, "also") if shape.text == "b" else None

    @app.join(Photo, of=(Leaf, Shape, Grade), name="all")
    async def everything(photo: Photo, outputs: list[Leaf | Shape | Grade]) -> None:
        given[photo.n] = [
            f"{type(one).__name__}{one.i}{getattr(one, 'text', '')}" for one in outputs
        ]

    async with Harness(app, nats) as harness:
        await harness.publish(Photo(2), Photo(0))
        await harness.drain()
        reports = {one.photo: one.grades for one in await harness.messages(Report)}
        assert reports == {0: [], 2: [0, 100, 1, 101]}
        each = ["Leaf{}", "Grade{}", "Shape{}a", "Shape{}b", "Grade10{}"]
        assert given == {0: [], 2: [text.format(i) for i in (0, 1) for text in each]}


async def test_joins_whose_root_is_an_output_are_waited_for(nats: Settings) -> None:
    app = App("plants")

    class Flight(Message):
        name: str
        photos: list[int]

    class Flown(Message):
        name: str
        reports: list[Report]

    @app.stage
    async def fly(flight: Flight) -> list[Photo]:
        return [Photo(n) for n in flight.photos]

    pipeline(app)
    reporting(app)
    began = asyncio.Event()

    @app.stage
    async def slow(report: Report) -> Shape:
        began.set()
        return Shape(report.photo, 0)

    @app.join(Flight, of=(Report, Shape))
    async def flown(flight: Flight, reports: list[Report | Shape]) -> Flown:
        assert sum(isinstance(one, Shape) for one in reports) == len(flight.photos)
        return Flown(flight.name, [one for one in reports if isinstance(one, Report)])

    async with Harness(app, nats) as harness:
        await harness.publish(Flight("a", [2, 0, 5]), Flight("b", []))
        await harness.drain()
        found = {one.name: one.reports for one in await harness.messages(Flown)}
        assert [(one.photo, one.grades) for one in found["a"]] == [
            (2, [0, 1]),
            (0, []),
            (5, [0, 1, 2, 4]),
        ]
        assert found["b"] == []
        (letter,) = await harness.dead()
        assert letter.stage == "grade"  # told to both joins, and neither died of it


@pytest.mark.parametrize("count", [1, 300, 10_000])
async def test_many_outputs_and_large_ones(nats: Settings, count: int) -> None:
    app, given = App("plants"), list[tuple[int, int]]()

    @app.stage(timeout=120)
    async def cut(photo: Photo) -> AsyncIterator[Shape]:
        for i in range(photo.n):
            yield Shape(photo.n, i, "x" * 200)

    @app.join(Photo, of=Shape)
    async def report(photo: Photo, shapes: list[Shape], ctx: Context) -> None:
        assert not ctx.incomplete
        assert [shape.i for shape in shapes] == list(range(photo.n))
        assert {shape.text for shape in shapes} == {"x" * 200}
        given.append((photo.n, len(shapes)))

    async with Harness(app, nats) as harness:
        await harness.publish(Photo(count))
        await harness.drain()
        assert await harness.dead() == []
    assert given == [(count, count)]


async def test_a_chain_of_nodes_up_to_the_bound_and_above_it(nats: Settings) -> None:
    app, given = App("plants"), dict[int, tuple[int, str]]()

    @app.stage(timeout=120)
    async def cut(photo: Photo) -> AsyncIterator[Leaf]:
        for i in range(photo.n):
            yield Leaf(photo.n, i)

    @app.stage
    async def grade(leaf: Leaf) -> Grade:
        return Grade(leaf.photo, leaf.i)

    @app.join(Photo, of=Grade)
    async def report(photo: Photo, grades: list[Grade], ctx: Context) -> None:
        given[photo.n] = (len(grades), ctx.incomplete)

    async with Harness(app, nats) as harness:
        await harness.publish(Photo(3_000), Photo(11_000))
        await harness.drain()
        assert await harness.dead() == []
    assert given[3_000] == (3_000, "")
    assert given[11_000][1] == "too many"


async def test_many_deaths_are_told_as_well(nats: Settings) -> None:
    app, died = App("plants"), list[str]()

    @app.stage(timeout=120)
    async def cut(photo: Photo) -> list[Leaf]:
        return [Leaf(photo.n, i) for i in range(photo.n)]

    @app.stage
    async def grade(leaf: Leaf) -> Grade:
        raise Reject(f"{leaf.i} " + "x" * 300)

    @app.join(Photo, of=Grade)
    async def report(photo: Photo, grades: list[Grade], ctx: Context) -> None:
        assert grades == []
        died.extend(one.reason.split()[0] for one in ctx.died)

    async with Harness(app, nats) as harness:
        await harness.publish(Photo(1_000))
        await harness.drain()
    assert died == [str(i) for i in range(1_000)]


async def test_a_deadline_is_told_what_there_is_and_what_is_missing(nats: Settings) -> None:
    app, go = App("plants"), asyncio.Event()

    @app.stage
    async def cut(photo: Photo) -> list[Leaf]:
        return [Leaf(photo.n, i) for i in range(photo.n)]

    @app.stage
    async def grade(leaf: Leaf) -> Grade:
        if leaf.i == 1:
            await go.wait()
        return Grade(leaf.photo, leaf.i)

    reporting(app, deadline="5s")  # for a busy machine

    async def told(harness: Harness, count: int) -> list[Report]:
        await until(lambda: enough(harness, count), f"{count} reports")
        return await harness.messages(Report)

    async def enough(harness: Harness, count: int) -> bool:
        return len(await harness.messages(Report)) >= count

    async with Harness(app, nats) as harness:
        async with harness.worker():
            await harness.publish(Photo(3), Photo(1))
            reports = await told(harness, 2)
            assert {one.photo: one for one in reports} == {
                1: Report(1, [0]),
                3: Report(3, [0, 2], [], "late", {"grade": 1}),
            }
            go.set()
        await harness.drain()
        assert len(await harness.messages(Report)) == 2  # what came later is too late


async def test_a_root_that_no_stage_has_begun_with_has_a_deadline(nats: Settings) -> None:
    app = App("plants")
    pipeline(app)
    reporting(app, deadline="0.5s")
    async with Harness(app, nats) as harness:
        async with harness.worker(TRACKER, "mqinfer-deadline-report", "report"):
            await harness.publish(Photo(2))

            async def found() -> list[Report]:
                return await harness.messages(Report)

            assert await until(found) == [Report(2, [], [], "late", {"cut": 1})]
        await harness.drain()
        assert len(await harness.messages(Report)) == 1


async def test_rows_can_be_asked_for(nats: Settings) -> None:
    app, given = App("plants"), list[int]()

    class Score(Row):
        i: int

    @app.stage
    async def cut(photo: Photo) -> list[Score]:
        return [Score(i) for i in range(photo.n)]

    @app.join(Photo, of=Score)
    async def report(photo: Photo, scores: list[Score]) -> None:
        assert len(scores) == photo.n
        given.extend(score.i for score in scores)

    async with Harness(app, nats) as harness:
        await harness.publish(Photo(4))
        await harness.drain("cut", TRACKER, "report")
    assert given == [0, 1, 2, 3]


async def test_a_join_whose_handler_fails_is_a_dead_letter_of_its_own(nats: Settings) -> None:
    app, calls = App("plants"), list[int]()
    pipeline(app)

    @app.join(Photo, of=Grade, attempts=2, backoff=SOON)
    async def report(photo: Photo, grades: list[Grade], ctx: Context) -> Report:
        calls.append(ctx.attempt)
        raise ValueError("not today")

    async with Harness(app, nats) as harness:
        await harness.publish(Photo(2))
        await harness.drain()
        (letter,) = await harness.dead()
        assert letter.stage == "report"
        assert calls == [1, 2]
