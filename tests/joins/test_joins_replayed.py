"""Joins in replay runs: they see the run's outputs, and what they write belongs to the run."""

from __future__ import annotations

from mqinfer import App, Context, Message
from mqinfer.completion import roots
from mqinfer.identity import RUN
from mqinfer.replay import runs
from mqinfer.replay.consumers import consumers
from mqinfer.replay.ranges import Wanted
from mqinfer.settings import Settings
from mqinfer.testing import Harness
from tests.support.replay import runs_of, work


class Flight(Message):
    photos: int


class Photo(Message):
    n: int


class Leaf(Message):
    photo: int
    i: int


class Grade(Message):
    photo: int
    i: int
    run: str


class Report(Message):
    photo: int
    grades: list[str]


class Flown(Message):
    reports: int


def flights() -> App:
    app = App("plants")

    @app.stage
    async def fly(flight: Flight) -> list[Photo]:
        return [Photo(n) for n in range(flight.photos)]

    @app.stage
    async def cut(photo: Photo) -> list[Leaf]:
        return [Leaf(photo.n, i) for i in range(photo.n)]

    @app.stage
    async def grade(leaf: Leaf, ctx: Context) -> Grade:
        return Grade(leaf.photo, leaf.i, ctx.run or "live")

    @app.join(Photo, of=Grade, deadline="1h")
    async def report(photo: Photo, grades: list[Grade]) -> Report:
        return Report(photo.n, [f"{grade.i} {grade.run}" for grade in grades])

    @app.join(Flight, of=Report)
    async def flown(flight: Flight, reports: list[Report]) -> Flown:
        return Flown(len(reports))

    return app


async def test_a_run_has_joins_of_its_own(nats: Settings) -> None:
    app = flights()
    async with Harness(app, nats) as harness:
        await harness.publish(Flight(4))
        await harness.drain()
        live = [*await harness.stored(subject="plants.report")]
        assert len(live) == 4
        assert await harness.messages(Flown) == [Flown(4)]

        store = runs_of(harness)
        await store.create(stage="cut", wanted=Wanted(), name="photos", downstream=True)
        await work(harness, "photos")
        found = await harness.stored(subject="plants.run.photos.report")
        assert {one.headers[RUN] for one in found} == {"photos"}
        assert sorted(one.data.decode().count("photos") for one in found) == [0, 1, 2, 3]
        assert all(b"live" not in one.data for one in found)
        # The flight is above what the run handles: nobody waits for it there.
        assert await harness.stored(subject="plants.run.photos.flown") == []

        await store.create(stage="fly", wanted=Wanted(), name="all", downstream=True)
        await work(harness, "all")
        assert len(await harness.stored(subject="plants.run.all.report")) == 4
        (whole,) = await harness.stored(subject="plants.run.all.flown")
        assert whole.data == b'{"reports":4}'

        await store.create(stage="grade", wanted=Wanted(), name="leaves", downstream=True)
        await work(harness, "leaves")  # begins below the roots, and so calls no join
        records = roots.subject(app, "leaves", "*")
        assert await harness.stored(roots.stream(app), records) == []
        assert await harness.stored(subject="plants.run.leaves.report") == []
        await harness.drain()
        assert len(await harness.stored(subject="plants.report")) == 4
        assert await harness.dead() == []


def test_a_run_takes_joins_after_what_they_wait_for() -> None:
    app = flights()
    run = runs.Run(name="r", stage="fly", start=1, end=1, total=1, created=None, downstream=True)  # type: ignore[arg-type]
    names = [task.name for task in runs.taken(app, run)]
    assert names == ["fly", "cut", "grade", "report", "flown"]
    assert [one.task.name for one in consumers(app, run)] == [*names, "mqinfer-tracker"]
