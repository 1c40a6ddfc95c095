"""Near-duplicates on real servers: real pictures and copies of them, replays, people's words."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mqinfer import App, Context, Message
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.dedup.duplicates import Duplicates, Fingerprint, fingerprint, near_duplicates
from mqinfer.dedup.standing import Standing
from mqinfer.errors import BadImage, ConfigurationError
from mqinfer.replay.promote import Promotions
from mqinfer.replay.runs import Wanted
from mqinfer.settings import Settings
from mqinfer.testing import Harness
from tests.dedup.pictures import copies, encoded, tiles
from tests.support.dedup_app import content
from tests.support.replay import runs_of, work

STAGES = ("look", "dedup_enter", "dedup_pictures", "dedup_parts")


class Photo(Message, wire="msgpack"):
    name: str
    data: bytes


def an_app(**options: Any) -> tuple[App, Duplicates]:
    app = App("album", partitions=2)

    @app.stage
    async def look(photo: Photo, ctx: Context) -> Fingerprint:
        return await asyncio.to_thread(
            fingerprint,
            photo.data,
            picture=photo.name,
            order=ctx.sequence,
            vector=small(photo.data),
        )

    return app, near_duplicates(app, **options)


def small(data: bytes) -> np.ndarray[Any, Any]:
    """Stands for an embedding: the colors of 8 x 8 places."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    places = cv2.resize(pixels, (8, 8), interpolation=cv2.INTER_AREA).astype(float)
    return (places - places.mean()).ravel()


def of(standings: dict[str, Any]) -> dict[str, str]:
    return {key: state.original for key, state in standings.items() if isinstance(state, Standing)}


async def test_made_duplicates_are_found_replayed_and_promoted(
    nats: Settings, db: ClickHouse, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MQINFER_NATS_URL", nats.nats_url)
    app, duplicates = an_app()
    photos = [Photo(f"{n}", encoded(pixels)) for n, pixels in enumerate(tiles())]
    made = [
        Photo(f"{n} {how}", data)
        for n, pixels in enumerate(tiles())
        for how, data in copies(pixels).items()
    ]
    random.Random(1).shuffle(made)
    async with Harness(app, replace(nats, clickhouse_url=url)) as harness:
        await harness.publish(*photos)
        await harness.publish(*made)
        async with harness.worker():  # two workers, whichever is quicker
            await harness.drain()
        rows = await db.query(duplicates.sql)
        found = {row["picture"]: row["original"] for row in rows}
        assert len(found) == len(photos) + len(made)
        truth = {name: name.partition(" ")[0] for name in found}
        told = {name for name, original in found.items() if name != original}
        right = {name for name in told if found[name] == truth[name]}
        recall = len(right) / len(made)
        assert right == told  # precision
        assert recall >= 0.9
        assert {name for name in truth if name.endswith("again")} <= right
        live = of(await harness.client.states("dedup_pictures"))

        # A person does not agree. A replay of all comes to the same, and to what the person said.
        # Two of different originals: of two of one, the later would be a duplicate of the earlier.
        copied = {original: name for name, original in live.items() if name != original}
        (other, one), (another, two) = list(copied.items())[:2]
        await duplicates.say(harness.client, one, other, same=False, by="ann")
        await harness.drain()
        live = of(await harness.client.states("dedup_pictures"))
        assert live[one] == one
        await runs_of(harness).create(stage="look", wanted=Wanted(), name="r1", downstream=True)
        await work(harness, "r1")
        assert of(await harness.client.states("dedup_pictures", run="r1")) == live

        # What a person said since stands as well when the replay is promoted.
        await duplicates.say(harness.client, two, another, same=False, by="bob")
        await harness.drain()
        before = {row["picture"]: row for row in await db.query(duplicates.sql)}
        await Promotions(app, runs_of(harness), db).promote("r1")
        shown = {row["picture"]: row for row in await db.query(duplicates.sql)}
        assert shown == before
        apart = [row for row in shown.values() if row["content"] in (one, two)]
        assert [row["original"] for row in apart] == [row["picture"] for row in apart]
        assert len(apart) == 2
        assert await harness.dead() == []


async def test_a_persons_word_stands(nats: Settings) -> None:
    app, duplicates = an_app(bits=4)
    a, b, c, d = map(content, range(4))
    near = {a: 0xFFFF0000, b: 0xFFFF0001, c: 0xFFFF0003, d: 0x0F0F0F0F0F0F0F0F}

    def seen(key: str, order: int) -> Fingerprint:
        return Fingerprint(key[:4], order, key, f"{near[key]:016x}")

    async with Harness(app, nats) as harness:

        async def originals() -> dict[str, str]:
            await harness.drain(*STAGES)
            return of(await harness.client.states("dedup_pictures"))

        # Before it is seen, and before the other one is.
        await duplicates.say(harness.client, b, a, same=False, by="ann")
        await harness.publish(seen(b, 2), seen(a, 1), seen(c, 3))
        assert await originals() == {a: a, b: b, c: a}
        await duplicates.say(harness.client, c, a, same=False, by="ann")
        assert await originals() == {a: a, b: b, c: b}
        await duplicates.say(harness.client, a, d, same=True, by="ann")
        await harness.publish(seen(d, 0))
        assert await originals() == {a: d, b: b, c: b, d: d}
        await duplicates.say(harness.client, d, a, same=False, by="bob")  # the last word counts
        await duplicates.say(harness.client, b, a, same=True, by="bob")
        assert await originals() == {a: a, b: a, c: c, d: d}
        for wrong in ("x", a):
            with pytest.raises(ConfigurationError, match="two pictures"):
                await duplicates.say(harness.client, a, wrong, same=True, by="ann")


async def test_another_rule_takes_peoples_words_along(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MQINFER_NATS_URL", nats.nats_url)
    app, duplicates = an_app(bits=4)
    a, b, c = map(content, range(3))
    near = {a: 0xFFFF0000, b: 0xFFFF0001, c: 0xFFFF00FF}
    async with Harness(app, nats) as harness:
        for order, key in enumerate(near):
            await harness.publish(Fingerprint(key[:4], order, key, f"{near[key]:016x}"))
        await duplicates.say(harness.client, b, a, same=False, by="ann")
        await harness.drain(*STAGES)
        assert of(await harness.client.states("dedup_pictures")) == {a: a, b: b, c: c}
    # A later version of the app has a wider rule, and one that knows of no words.
    later, _ = an_app(bits=4)
    near_duplicates(later, "wide", bits=8, words_from=["dedup"])
    near_duplicates(later, "deaf", bits=8)
    stages = [
        f"{name}_{one}" for name in ("wide", "deaf") for one in ("enter", "pictures", "parts")
    ]
    async with Harness(later, nats) as harness:
        await harness.drain(*stages)
        heard = of(await harness.client.states("wide_pictures"))
        assert heard == {a: a, b: b, c: a}
        assert of(await harness.client.states("deaf_pictures")) == {a: a, b: a, c: a}


@pytest.mark.parametrize("kind", ["black", "a point", "alpha", "16 bits", "grey"])
def test_odd_pictures(kind: str) -> None:
    tile = next(tiles())
    data = {
        "black": encoded(np.zeros((50, 70, 3), np.uint8)),
        "a point": encoded(np.full((1, 1, 3), 7, np.uint8)),
        "alpha": encoded(np.dstack([tile, tile[..., 0]])),
        "16 bits": encoded(tile.astype(np.uint16) * 257),
        "grey": encoded(cv2.cvtColor(tile, cv2.COLOR_BGR2GRAY)),
    }[kind]
    found = fingerprint(data, picture=kind, order=1)
    if kind in ("black", "a point"):
        assert found.looks == ""  # nothing is near it: only the same bytes are the same
        return
    plain = fingerprint(encoded(tile), picture="plain", order=1)
    assert (int(found.looks, 16) ^ int(plain.looks, 16)).bit_count() <= 2
    assert found.content != plain.content


def test_what_is_no_picture_or_no_vector_is_refused(tmp_path: Path) -> None:
    data = encoded(next(tiles()), ".jpg")
    for broken in (b"", b"GIF89a", data[: len(data) // 2], b"not a picture"):
        with pytest.raises(BadImage):
            fingerprint(broken, picture="broken", order=1)
    for vector in ([], [0.0, 0.0], [1.0, float("nan")], [float("inf"), 1.0], [[1.0]]):
        with pytest.raises(BadImage, match="the vector of picture"):
            fingerprint(data, picture="p", order=1, vector=vector)
    large = fingerprint(data, picture="p", order=1, vector=[1e300, 1e300])
    assert np.allclose(np.frombuffer(large.vector, "<f2"), 0.5**0.5, atol=1e-3)
