"""Vectors from the stream into memory, and searches from a client, on a real nats-server."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

import mqinfer
from mqinfer.errors import SearchError, Unavailable
from mqinfer.search.keeping import Keeping
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from tests.search.support import clustered, exact, holding, keys, messages, seen
from tests.support.gateway import serving
from tests.support.search_app import Vector, app, pictures


async def test_what_is_published_is_found_changed_and_taken_out(nats: Settings) -> None:
    vectors = clustered(300)
    async with Harness(app, nats) as harness:
        search = harness.client.search
        with pytest.raises(Unavailable, match="mqinfer index APP serve"):
            await search("pictures", vectors[0])
        async with holding(harness):
            await harness.publish(*messages(vectors))  # packs of rows
            await seen(harness, 300)
            hits = await search("pictures", vectors[7], 10)
            assert keys(hits) == [f"p{n}" for n in exact(vectors, vectors[7], 10)]
            assert hits[0].score == pytest.approx(1.0, abs=1e-4)
            assert hits[0].values == {"station": "south", "number": 7}
            assert (hits.shards, hits.complete) == ("2/2", True)
            assert hits.generations == {"searched_vector": 1}

            south = await search("pictures", vectors[8], 5, where={"station": "south"})
            assert {hit.values["station"] for hit in south} == {"south"}
            some = await search("pictures", vectors[8], 9, where={"number": {"ge": 10, "lt": 13}})
            assert sorted(keys(some)) == ["p10", "p11", "p12"]
            assert len(await search("pictures", vectors[8], where={"station": "west"})) == 0
            assert len(await search("pictures", vectors[8], 1000)) == 300  # k is more than there is

            # A message of its own, a later vector of the same key, and one that takes it out.
            moved = Vector("p7", (-vectors[7]).tolist(), "north", 7)
            await harness.client.publish(moved, id="moved")
            await until(lambda: _is_last(harness, vectors[7]), "the vector that moved")
            await harness.client.publish(Vector("p7", []), id="gone")
            await seen(harness, 299)
            assert "p7" not in keys(await search("pictures", vectors[7], 1000))

        async with mqinfer.connect(app, nats), holding(harness):
            assert len(await pictures.search(vectors[8], 1000)) == 299


async def _is_last(harness: Harness, query: object) -> bool:
    return (await harness.client.search("pictures", query, 1000))[-1].key == "p7"


async def test_what_cannot_be_searched_for_is_refused_in_clear_words(nats: Settings) -> None:
    vectors = clustered(5)
    async with Harness(app, nats) as harness, holding(harness) as keeping:
        await harness.publish(*messages(vectors))
        await seen(harness, 5)

        async def refused(text: str, vector: object, k: int = 3, **more: object) -> None:
            with pytest.raises(SearchError, match=text):
                await harness.client.search("pictures", vector, k, **more)  # type: ignore[arg-type]

        await refused("is nan at place 1", [0.0, float("nan")])
        await refused("31 dimensions, and the index has 32", vectors[0][:31])
        await refused("all zeros", np.zeros(32))
        await refused("no list of numbers", ["a"])
        await refused("k=0 must be 1 to 1000", vectors[0], 0)
        await refused("no filter 'colour'; it has station, number", vectors[0], where={"colour": 1})
        await refused("no operator 'like'", vectors[0], where={"station": {"like": "n"}})
        await refused("Expected `int`", vectors[0], where={"number": "many"})
        await refused("not lite9", {"lite9": vectors[0]})

        # What cannot be indexed is told; what its key had before stays.
        bad = [float("nan")] * 32
        await harness.client.publish(Vector("p1", bad), id="nan")
        await harness.client.publish(Vector("p8", [1.0]), id="short")
        await harness.client.publish(Vector("p9", [0.0] * 32), id="zeros")

        def told() -> dict[object, str] | None:
            found = {key: why for one in keeping.holding().shards for key, why in one.refused}
            return found if len(found) == 3 else None

        found = await until(told, "what is refused")
        assert "place 0" in found["p1"]
        assert "has 1 dimensions" in found["p8"]
        assert "all zeros" in found["p9"]
        assert sorted(keys(await harness.client.search("pictures", vectors[1], 9))) == [
            f"p{n}" for n in range(5)
        ]
        await harness.client.publish(Vector("p8", vectors[0].tolist()), id="mended")
        await seen(harness, 6)
        assert "p8" not in [key for one in keeping.holding().shards for key, _ in one.refused]


async def test_equal_distances_have_one_order_and_a_missing_shard_is_told(nats: Settings) -> None:
    same = np.ones((40, 32), np.float32) * np.arange(1, 41)[:, None]
    async with Harness(app, nats) as harness:
        async with holding(harness):
            await harness.publish(*messages(same))
            await seen(harness, 40)
            wanted = sorted(f"p{n}" for n in range(40))
            for k in (1, 5, 40):
                hits = await harness.client.search("pictures", same[3], k)
                assert keys(hits) == wanted[:k]
        async with holding(harness, part=(0, 2)):
            hits = await harness.client.search("pictures", same[0], 40)
            assert (hits.shards, hits.complete) == ("1/2", False)
            assert hits.missing == ("searched_vector/1",)
            assert 0 < len(hits) < 40
            async with holding(harness, part=(1, 2)):
                hits = await harness.client.search("pictures", same[0], 40)
                assert (hits.shards, keys(hits)) == ("2/2", wanted)


async def test_searches_by_http_are_those_of_a_client(nats: Settings) -> None:
    vectors = clustered(40)
    async with serving(nats, app) as served, holding(served.harness):
        where = "/v1/indexes/pictures/search"
        away = await served.http.post("/v1/indexes/others/search", json={"vector": [1.0]})
        assert (away.status_code, "there are: pictures" in away.text) == (404, True)
        await served.harness.publish(*messages(vectors))
        await seen(served.harness, 40)
        asked = {"vector": vectors[3].tolist(), "k": 3, "where": {"number": {"lt": 9}}}
        found = (await served.http.post(where, json=asked)).json()
        own = await served.harness.client.search(
            "pictures", vectors[3], 3, where={"number": {"lt": 9}}
        )
        assert [hit["key"] for hit in found["hits"]] == keys(own)
        assert found["hits"][0]["values"] == {"station": "south", "number": 3}
        assert (found["shards"], found["missing"]) == ("2/2", [])
        for body, text in (
            ({"vector": [1.0]}, "1 dimensions"),
            ({"vector": [0.0] * 32}, "all zeros"),
            ({"vector": "near"}, "Expected"),
            ({"vector": [1.0], "colour": 1}, "unknown field"),
        ):
            refused = await served.http.post(where, json=body)
            assert (refused.status_code, text in refused.text) == (422, True), refused.text
        assert (await served.http.get("/v1/indexes")).json()["indexes"][0]["name"] == "pictures"
        from openapi_spec_validator import OpenAPIV31SpecValidator

        document = (await served.http.get("/openapi.json")).json()
        OpenAPIV31SpecValidator(document).validate()
        assert where.replace("pictures", "{name}") in document["paths"]


async def test_a_flip_while_searches_go_on_fails_none_and_mixes_nothing(nats: Settings) -> None:
    vectors = clustered(200)
    async with Harness(app, nats) as harness, holding(harness) as keeping:
        await harness.publish(*messages(vectors))
        await seen(harness, 200)
        generations = keeping.tools.generations
        found: list[tuple[int, list[object]]] = []
        stop = asyncio.Event()

        async def searches() -> None:
            while not stop.is_set():
                hits = await harness.client.search("pictures", vectors[3], 10)
                assert hits.complete
                found.append((hits.generations["searched_vector"], keys(hits)))

        async with asyncio.TaskGroup() as group:
            group.create_task(searches())
            model = "searched_vector"
            made = await generations.build(pictures, model, {"shards": 3, "metric": "l2"})
            await until(lambda: _ready(keeping, made.number), "a generation")
            assert {number for number, _ in found} == {1}
            assert await generations.flip(pictures, model, 2) == 1
            await until(lambda: found[-1][0] == 2, "searches of the other generation")
            await generations.drop(pictures, model, 1, harness.services.store)
            await until(lambda: not _ready(keeping, 1), "the old one's end")
            seen_then = len(found)
            await until(lambda: len(found) > seen_then + 5, "searches after it")
            stop.set()
        # By the cosine, or by the distance: each answer is of one of the two.
        far = np.argsort(((vectors - vectors[3]) ** 2).sum(axis=1), kind="stable")[:10]
        wanted = {1: [f"p{n}" for n in exact(vectors, vectors[3], 10)], 2: [f"p{n}" for n in far]}
        assert all(hits == wanted[number] for number, hits in found)
        assert wanted[1] != wanted[2]


def _ready(keeping: Keeping, number: int) -> bool:
    return any(one.ready for one in keeping.holding().shards if one.generation == number)
