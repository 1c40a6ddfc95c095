"""An index of two models: merged by weights, which are set at run time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

import mqinfer
from mqinfer.errors import SearchError
from mqinfer.search.searching import chosen
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from tests.search.support import clustered, holding, keys
from tests.support.search_two_app import Large, Small, app, pictures

APP = "tests.support.search_two_app:app"


def test_each_model_has_its_share_of_ids_and_an_id_always_the_same() -> None:
    weights = {"small": 3.0, "large": 1.0, "none": 0.0}
    found = [chosen(weights, f"id{n}") for n in range(4000)]
    assert found == [chosen(weights, f"id{n}") for n in range(4000)]
    assert 2850 < found.count("small") < 3150
    assert "none" not in found
    with pytest.raises(SearchError, match="all 0"):
        chosen({"small": 0.0}, "id")


async def test_models_are_merged_by_weights(
    nats: Settings, told: Callable[..., Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = clustered(120, 1, 8), clustered(120, 2, 16)
    async with (
        mqinfer.connect(app, nats) as client,
        Harness(app, nats) as harness,
        holding(harness),
    ):
        await client.publish_all([Small(n, one.tolist()) for n, one in enumerate(small)])
        await client.publish_all([Large(n, one.tolist()) for n, one in enumerate(large[:100])])
        query = {"small": small[5], "large": large[5]}

        def near(n: int, one: str) -> float:
            vectors, asked = {"small": (small, small[5]), "large": (large, large[5])}[one]
            if one == "large" and n >= 100:
                return 0.0
            long = (vectors[n] @ vectors[n]) ** 0.5 * (asked @ asked) ** 0.5
            return float(vectors[n] @ asked / long)

        def wanted(**weights: float) -> list[int]:
            scores = {
                n: sum(weight * near(n, one) for one, weight in weights.items()) for n in range(120)
            }
            return sorted(scores, key=lambda n: -scores[n])[:8]

        async def all_there() -> bool:
            hits = await pictures.search(query, 1000)
            return sum(len(hit.scores) for hit in hits) == 220

        await until(all_there, "all vectors")
        for weights in ({"small": 1.0, "large": 1.0}, {"small": 2.0, "large": 1.0}):
            hits = await pictures.search(query, 8, weights=weights)
            assert keys(hits) == wanted(**weights)
            assert hits.shards == "4/4"
            first = hits[3]
            assert first.scores == pytest.approx(
                {one: near(first.key, one) for one in first.scores},  # type: ignore[arg-type]
                abs=1e-3,
            )
        assert keys(await pictures.search({"large": large[5]}, 8)) == wanted(large=1.0)
        with pytest.raises(SearchError, match="several models"):
            await pictures.search(small[5])
        with pytest.raises(SearchError, match="not all 0"):
            await pictures.search(query, weights={"small": 0})

        assert await told("index", APP, "weights", "pictures", "--set", "large=0") == (
            "pictures: small=1, large=0\n"
        )

        async def heeded() -> bool:
            await asyncio.sleep(0.1)
            return keys(await pictures.search(query, 8)) == wanted(small=1.0)

        await until(heeded, "the weights")
        assert {await client.model_of("pictures", f"id{n}") for n in range(50)} == {"small"}
        assert "no model 'medium'" in await told(
            "index", APP, "weights", "--set", "medium=1", code=2
        )
