"""Two workers, killed between any two steps, and the server: one original for what is alike."""

from __future__ import annotations

import random
from pathlib import Path

from mqinfer.dedup.standing import Standing
from mqinfer.testing import until
from tests.support import kills
from tests.support.dedup_app import STAGES, Photo, app, content, looks, truth

PLAN = kills.Deaths(kills=4, server_kills=1, steps=(20, 500), workers=2, seed=7)


async def test_workers_are_killed_between_any_two_steps(tmp_path: Path) -> None:
    photos = list(range(40))
    random.Random(7).shuffle(photos)  # the earliest are by no means the first
    async with kills.grounds(PLAN, app, tmp_path) as grounds:
        harness = grounds.harness
        async with grounds.fleet("dedup", *(f"--stage={stage}" for stage in STAGES)) as fleet:
            await harness.publish(*map(Photo, photos[:25]))
            await grounds.kill_server()
            await harness.publish(*map(Photo, photos[25:]))
            await until(lambda: fleet.deaths >= PLAN.kills, "deaths", 240)
        await harness.drain(*STAGES)
        standings = await harness.client.states("dedup_pictures")
        found = {
            key: state.original for key, state in standings.items() if isinstance(state, Standing)
        }
        assert found == truth({content(n): (n, looks(n)) for n in photos}, {})
        assert await harness.dead() == []
