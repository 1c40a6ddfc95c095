"""A generation with the vectors of a replay run, beside the live one."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import pytest

from mqinfer.errors import Unavailable
from mqinfer.replay.runs import Wanted
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from tests.search.support import holding, keys
from tests.support import search_run_app
from tests.support.replay import runs_of, work
from tests.support.search_run_app import Picture, Vector, app

NAME = "tests.support.search_run_app:app"


async def test_a_generation_of_a_run_has_its_vectors_and_the_live_one_none(
    nats: Settings,
    told: Callable[..., Awaitable[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MQINFER_BLOBS", str(nats.blobs))
    monkeypatch.setattr(search_run_app, "turn", 0.0)
    async with Harness(app, nats) as harness:
        await harness.publish(*(Picture(number) for number in range(20)))
        await harness.drain()
        await harness.publish(Vector(7, []))  # taken out, and the run brings it back
        async with holding(harness) as keeping:
            monkeypatch.setattr(search_run_app, "turn", 50.0)
            wanted = Wanted(from_seq=6)  # the first five are left out
            await runs_of(harness).create(stage="embed", wanted=wanted, name="r1")
            await work(harness, "r1")
            said = await told("index", NAME, "build", "pictures", "--run", "r1", "--json")
            (built,) = json.loads(said)
            assert (built["number"], built["run"]) == (2, "r1")
            await harness.publish(Picture(20))  # what is live goes into both
            await harness.drain()

            async def nearest(generation: int) -> list[object]:
                found = await harness.client.search(
                    "pictures", [0.0, 0.0, 1.0], 50, generations={"vector": generation}
                )
                return keys(hit for hit in found if hit.score > 0.5)

            async def all_there() -> bool:
                try:
                    live, run = await nearest(1), await nearest(2)
                except Unavailable:
                    return False
                return live == [20] and sorted(run, key=str) == sorted(range(5, 21), key=str)

            await until(all_there, "both generations")
            await harness.publish(Vector(7, []))  # once more, as docs/search.md says

            async def taken_out() -> bool:
                return 7 not in await nearest(2)

            await until(taken_out, "what is taken out again")
            await until(lambda: not keeping.not_ready(), "the generation")
            assert "searches go to generation 2" in await told("index", NAME, "flip", "pictures")
