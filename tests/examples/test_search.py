"""The image search, with stand-ins for its models: pictures come and go, versions change, a page.

The whole of it, with real models, pictures and processes, is `make demo-search`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pytest

from examples.requests.local import browser
from examples.search import pictures as collection
from examples.search.app import Lite0Entry, Lite0Vector, Lite2Entry, app, folded, pictures
from examples.search.local import FILE
from examples.search.pictures import KINDS, copied, on_white
from mqinfer import Settings, plan
from mqinfer.deploy.reading import read
from mqinfer.hits import Hit
from mqinfer.testing import FakeModels, until
from tests.search.support import holding
from tests.support.gateway import Served, serving

# No ClickHouse: all but the tables' sinks.
STAGES = [task.name for task in plan.tasks(app) if task.row is None]


def plainly(image: Any) -> dict[str, Any]:
    """What a picture looks like from afar, as a vector."""
    small = image.reshape(8, 20, 8, 20, 3).mean(axis=(1, 3)).astype(np.float32)
    return {"embedding": (small.reshape(-1) / 255 + 0.01).astype(np.float32)}


def standard(image: Any) -> dict[str, Any]:
    """The second version: what all have in common is taken out, and it is another space."""
    found = plainly(image)["embedding"]
    return {"embedding": np.concatenate([found - found.mean(), [1e-3]]).astype(np.float32)}


def drawn(seed: int) -> bytes:
    """A picture of some colored things."""
    random = np.random.default_rng(seed)
    made = np.full((64, 64, 3), 255, np.uint8)
    for _ in range(4):
        centre = tuple(int(one) for one in random.integers(8, 56, 2))
        color = tuple(int(one) for one in random.integers(0, 220, 3))
        cv2.circle(made, centre, int(random.integers(6, 20)), color, -1)
    return cv2.imencode(".png", made)[1].tobytes()


@dataclass
class Running:
    """The app at work."""

    served: Served

    async def ask(self, endpoint: str, **given: Any) -> dict[str, Any]:
        """The answers by type."""
        answer = await self.served.ask(endpoint, wait=30, **given)
        told = answer.json()
        if answer.status_code == 202:
            told = await self.served.ended(told["id"])
        assert told["status"] == "succeeded", told
        return {one["type"]: one["data"] for one in told["answers"]}

    async def add(self, name: str, data: bytes) -> str:
        """Add a picture; its id, once it is found by both models."""
        added = await self.ask("add", picture=coded(data), name=name)
        identity = added["added"]["picture_id"]
        assert identity == hashlib.sha256(data).hexdigest()
        await until(lambda: self.there(identity, data), f"{name} in the index")
        return identity

    async def there(self, identity: str, data: bytes) -> bool:
        """Whether a picture is the nearest to itself, by each model."""
        found = (await self.similar(data, k=24))["by_model"].values()
        return all(identity in {one["picture_id"] for one in near} for near in found)

    async def similar(self, data: bytes, **given: Any) -> dict[str, Any]:
        """What is like a picture."""
        found: dict[str, Any] = (await self.ask("similar", picture=coded(data), **given))["found"]
        return found


def coded(data: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(data).decode()}


@asynccontextmanager
async def running(nats: Settings, patch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    """A worker and a gateway with the page; who holds shards comes beside."""
    patch.setenv("MQINFER_NATS_URL", nats.nats_url)  # for what stages open themselves
    patch.setenv("MQINFER_BLOBS", nats.blobs)
    models = {"lite0:1": plainly, "lite0:2": standard, "lite2:1": plainly}
    with FakeModels(models, aliases={"lite0@live": "1", "lite2@live": "1"}):
        async with (
            serving(nats, app, site=FILE.parent / "site") as served,
            served.harness.worker(*STAGES),
        ):
            yield Running(served)


async def test_a_version_is_rolled_out_while_pictures_come_and_go(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(nats, monkeypatch) as album, holding(album.served.harness) as keeping:
        harness, generations = album.served.harness, keeping.tools.generations

        async def beside(version: str) -> int:
            pinned = {"model": "lite0", "version": version}
            number = (await generations.build(pictures, "lite0", pinned)).number

            def read() -> bool:
                shards = [one for one in keeping.holding().shards if one.generation == number]
                return bool(shards) and all(one.ready for one in shards)

            await until(read, f"generation {number}")
            return number

        first = drawn(1)
        kept, gone = await album.add("a/one.png", first), await album.add("a/two.png", drawn(2))
        # Until now of any version: it is pinned before there is another one.
        await generations.flip(pictures, "lite0", await beside("1"))
        number = await beside("2")

        async def known() -> bool:
            entries = [one for one in await harness.messages(Lite0Entry) if one.version == "2"]
            if not entries:  # as soon as whoever takes pictures has looked
                await album.add(f"b/{len(await harness.messages(Lite0Entry))}.png", drawn(90))
            return bool(entries)

        await harness.publish(Lite0Entry(gone, "remove"), Lite2Entry(gone, "remove"))
        late = await album.add("b/three.png", drawn(3))
        await until(known, "pictures that are embedded by both versions")
        # Of older ones, also of one that is removed: which stays so.
        for one in (kept, gone, late):
            await harness.publish(Lite0Entry(one, "again", version="2"))

        async def held() -> set[str]:
            query = standard_of(first)
            asked = harness.client.search(
                pictures, {"lite0": query}, 50, generations={"lite0": number}
            )
            return {str(hit.key) for hit in await asked}

        async def caught_up() -> bool:
            return {kept, late} <= await held()

        await until(caught_up, "the new version of all pictures")
        assert gone not in await held()
        await generations.flip(pictures, "lite0", number)

        async def flipped() -> bool:
            return (await album.similar(first))["versions"]["lite0"] == "2"

        await until(flipped, "the new version")
        found = await album.similar(first)
        assert found["merged"][0]["picture_id"] == kept
        assert found["merged"][0]["score"] == pytest.approx(1.0, abs=1e-3)
        rows = await harness.messages(Lite0Vector)
        assert len([one for one in rows if one.picture_id == kept and one.vector]) == 2


def standard_of(data: bytes) -> Any:
    read_ = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert read_ is not None
    resized = cv2.resize(read_, (160, 160), interpolation=cv2.INTER_LINEAR)[:, :, ::-1]
    return standard(resized)["embedding"]


@pytest.mark.skipif(browser() is None, reason="no chromium on the PATH")
async def test_the_page(nats: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    pytest.importorskip("playwright")
    from examples.search.page import looking

    program = browser()
    assert program is not None
    async with running(nats, monkeypatch) as album, holding(album.served.harness, part=(0, 2)):
        harness = album.served.harness
        async with holding(harness, part=(1, 2)):
            for number in range(6):
                await album.add(f"noto/thing-{number}.png", drawn(number))
            copy = copied(drawn(0), "recompressed")
            await album.ask("add", picture=coded(copy), name="copies/zero.jpg")

            async def alike() -> bool:
                return any(one["folded"] for one in (await album.similar(copy))["merged"])

            await until(alike, "a duplicate that is folded")
            async with looking(program, str(album.served.http.base_url)) as page:
                await page.drop("mine.png", drawn(0))
                await page.says("4/4 shards answered")
                await page.says("lite0 version 1")
                await page.warns("")
                assert "thing-0" in (await page.shown())[0]
                await page.sees("thing-3", "lite2")
                assert await page.page.locator("#together .folded:visible").count() == 1
                assert await page.whole()
                await page.photograph(tmp_path / "dark.png", dark=True, width=390)
                assert await page.whole()

                await page.weigh(100)
                await page.says("4/4 shards answered")
                await page.look("thing-3")
                await page.sees("thing-3")
                await page.remove("thing-4")
                await page.says("Removed: thing-4")
                await page.choose("new.png", drawn(77))
                await page.says("shards answered")
                await page.page.get_by_role("button", name="Add it to the album").click()
                await page.says("Added: new.png")

                await page.choose("text.png", b"no picture")
                await page.says("image")
                assert page.mistakes == []
        # One of two parts is held no more: that is said, and what the other has is shown.
        async with looking(program, str(album.served.http.base_url)) as page:
            await page.choose("mine.png", drawn(0))
            await page.says("2/4 shards answered")
            await page.warns("lite0/1, lite2/1 did not answer")
            assert page.mistakes == []


def test_what_is_alike_is_shown_once() -> None:
    def hit(key: str, score: float) -> Hit:
        return Hit(key, score, {"lite0": score}, {"name": key, "collection": "noto"})

    hits = [hit("copy", 0.99), hit("original", 0.98), hit("other", 0.5), hit("copy-2", 0.4)]
    near = folded(hits, {"copy": "original", "original": "original", "copy-2": "original"}, 2)
    assert [(one.picture_id, one.folded) for one in near] == [("copy", 2), ("other", 0)]


def test_pictures_lie_on_white_and_copies_differ() -> None:
    clear = np.zeros((64, 64, 4), np.uint8)
    clear[16:48, 16:48] = (0, 0, 255, 255)
    made = on_white(cv2.imencode(".png", clear)[1].tobytes())
    assert made[0, 0].tolist() == [255, 255, 255]
    assert made[32, 32].tolist() == [0, 0, 255]
    copies = {copied(drawn(5), kind) for kind in KINDS}
    assert len(copies) == len(KINDS)
    assert collection.HANDS.keys() == {"noto", "twemoji"}


def test_what_is_deployed_is_all_there_is() -> None:
    found = read(FILE, app, "local")
    runs = [stage for group in found.workers.values() for stage in group.stages]
    assert sorted(runs) == sorted(task.name for task in plan.tasks(app))
    assert found.indexes.keys() == app.indexes.keys()
    assert found.models == {"lite0@live": "1", "lite2@live": "1"}
