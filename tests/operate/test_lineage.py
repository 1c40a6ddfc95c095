"""The messages that rows were made from, found by their ids in a real stream, as far as they go."""

from __future__ import annotations

from msgspec import field

from mqinfer import App, Blob, Message, Row, wiring
from mqinfer.operate import lineage
from mqinfer.operate.lineage import Lineage, Made
from mqinfer.settings import Settings
from mqinfer.testing import Harness

app = App("seen")


class Photo(Message):
    name: str
    picture: Blob | None = None
    more: list[Blob] = field(default_factory=list)


class Leaf(Message):
    number: int


class Grade(Row, table="grade"):
    number: int


@app.stage
async def cut(photo: Photo) -> Leaf:
    raise NotImplementedError


@app.stage
async def grade(leaf: Leaf) -> Grade:
    raise NotImplementedError


def paths(found: list[tuple[lineage.Held, ...]]) -> list[list[str | None]]:
    return [[held.blob.path for held in one] for one in found]


async def test_the_nearest_ancestor_that_has_a_picture(nats: Settings) -> None:
    async with Harness(app, nats) as harness:
        await harness.publish(
            Photo("a", Blob.at("p/a.jpg"), [Blob.at("p/b.jpg"), Blob(b"inline")]),
            Photo("none"),
            ids=["id-a", "id-none"],
        )
        await harness.publish(Leaf(1), ids=["leaf-1"])
        body = b'{"name": "raw", "picture": "p/raw.jpg"}'
        await harness.publish_bytes(app.subject(Photo), body)
        await harness.publish_bytes(app.subject(Photo), b"no message")
        place = (await harness.stored())[-2].sequence
        found = Lineage(app, wiring.scanner(harness.services.broker))
        rows = [
            Made(("id-a", "leaf-1"), 50),  # the leaf has none
            Made((f"seen:{place}", "leaf-1"), 50),
            Made((f"seen:{place + 1}",), 50),  # it cannot be read
            Made(("id-none",), 50),
            Made(("gone", "other:1", "seen:", "seen:999999999999999999999"), 50),
            Made((), 0),
        ]
        blobs = await found.blobs(rows)
        assert paths(blobs) == [["p/a.jpg", "p/b.jpg", None], ["p/raw.jpg"], [], [], [], []]
        inline = blobs[0][2]
        assert (inline.kind, inline.field, inline.number) == ("Photo", "more", 2)
        again = await found.of_message(inline.sequence)
        assert again[inline.number].blob.inline == b"inline"
        assert await found.of_message(10_000) == ()


async def test_what_lies_far_back_is_not_looked_for(nats: Settings) -> None:
    async with Harness(app, nats) as harness:
        photos = [Photo(f"p{n}", Blob.at(f"p/{n}.jpg")) for n in range(lineage._BACK + 50)]
        await harness.publish(*photos, ids=[f"id-{n}" for n in range(len(photos))])
        found = Lineage(app, wiring.scanner(harness.services.broker))
        last = len(photos)
        near, far = Made((f"id-{last - 3}",), last), Made(("id-0",), last)
        assert paths(await found.blobs([near, far])) == [[f"p/{last - 3}.jpg"], []]
        # A stream that was made anew has other messages at its places.
        assert paths(await found.blobs([Made(("seen:3",), last)])) == [[]]


def test_rows_that_lie_near_are_looked_for_in_one_go() -> None:
    rows = [Made((), sequence) for sequence in (5000, 4900, 4890, 100, 0, -1)]
    assert list(lineage._ranges(rows)) == [(4490, 5000), (1, 100)]
