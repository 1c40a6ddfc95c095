"""Jobs through joins, several messages a row, keys and batches, and answers of other formats."""

from __future__ import annotations

from pathlib import Path

from mqinfer import App, Blob, Context, Message, Reject
from mqinfer.settings import Settings
from mqinfer.testing import Harness


class Photo(Message, key="n"):
    n: int
    leaves: int


class Leaf(Message):
    n: int
    i: int


class Grade(Message, wire="msgpack"):
    n: int
    i: int


class Report(Message):
    n: int
    grades: int
    died: list[str]


class Picture(Message):
    image: Blob
    name: str


class Size(Message):
    name: str
    size: int


async def test_what_a_join_writes_is_the_answer_of_its_row(nats: Settings) -> None:
    app = App("plants")

    @app.stage
    async def cut(photo: Photo) -> list[Leaf]:
        return [Leaf(photo.n, i) for i in range(photo.leaves)]

    @app.stage(batch_size=10, batch_wait=0.01)
    async def grade(leaves: list[Leaf]) -> list[Grade]:
        if len(leaves) == 1 and leaves[0].i == 2:
            raise Reject("too dark")
        if any(leaf.i == 2 for leaf in leaves):
            raise ValueError("one of them")
        return [Grade(leaf.n, leaf.i) for leaf in leaves]

    @app.join(Photo, of=Grade, deadline="1h")
    async def report(photo: Photo, grades: list[Grade], ctx: Context) -> Report:
        assert ctx.subject == "plants.bulk.joined.report"
        return Report(photo.n, len(grades), [one.reason for one in ctx.died])

    app.endpoint("report", Photo, answers=(Report, Grade))
    async with Harness(app, nats) as harness, harness.worker():
        rows = [Photo(n, n % 4) for n in range(40)]
        job = await harness.client.submit("report", rows)
        found = await job.wait()
        assert (found.status, found.done, found.partial) == ("partial", 40, 10)
        async for row in job.results():
            n = row.row - 1
            died = ["too dark"] if n % 4 == 3 else []
            grades = [Grade(n, i) for i in range(n % 4) if i != 2]
            assert row.answers == (*grades, Report(n, len(grades), died))
            assert [error.reason for error in row.errors] == died
        assert {one.subject for one in await harness.stored(subject="plants.bulk.photo.>")} == {
            f"plants.bulk.photo.{n}" for n in range(40)
        }


async def test_pictures_of_a_folder_small_and_large(nats: Settings, tmp_path: Path) -> None:
    app = App("plants")

    @app.stage
    async def measure(picture: Picture) -> Size:
        return Size(picture.name, len(await picture.image.bytes()))

    app.endpoint("size", Picture, answers=Size)
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.png").write_bytes(b"x" * 10)
    (folder / "deep" / "b.png").write_bytes(b"x" * 200_000)
    async with Harness(app, nats) as harness, harness.worker():
        job = await harness.client.submit("size", folder)
        assert (await job.wait()).status == "completed"
        rows = [row async for row in job.results()]
        assert [row.custom_id for row in rows] == ["a.png", "deep/b.png"]
        assert [row.answers for row in rows] == [
            (Size("a.png", 10),),
            (Size("deep/b.png", 200_000),),
        ]
        for path in ("in/c.png", "in/d.png"):
            await harness.client.blobs.put(path, b"y" * len(path) * 2)
        stored = await harness.client.submit("size", "blob:in/")
        assert (await stored.wait()).status == "completed"
        assert [row.answers async for row in stored.results()] == [
            (Size("c.png", 16),),
            (Size("d.png", 16),),
        ]


async def test_more_comes_of_a_chunk_than_one_can_have(nats: Settings) -> None:
    app = App("plants")

    @app.stage
    async def cut(photo: Photo) -> list[Leaf]:
        return [Leaf(photo.n, i) for i in range(photo.leaves)]

    @app.stage
    async def grade(leaf: Leaf) -> Grade:
        return Grade(leaf.n, leaf.i)

    app.endpoint("grade", Photo, answers=Grade)
    async with Harness(app, nats) as harness, harness.worker():
        job = await harness.client.submit("grade", [Photo(n, 4_000) for n in range(8)])
        found = await job.wait()
        assert found.done == 8
        (error,) = {error.reason async for row in job.errors() for error in row.errors}
        assert "submit with fewer a chunk" in error
        other = await harness.client.submit("grade", [Photo(n, 4_000) for n in range(2)], chunk=1)
        assert (await other.wait()).status == "completed"
        assert [len(row.answers) async for row in other.results()] == [4_000, 4_000]
