"""Workers of two versions do one job, also when the older ones die in the middle of it."""

from __future__ import annotations

from pathlib import Path

from mqinfer.testing import Harness, until
from tests.support.versions_app import HELD, Grade, Photo, app

from .processes import process, served

ROWS = 200
APP = "tests.support.versions_app:app"


async def test_two_versions_side_by_side_and_the_old_one_dies(tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    old, new = {"VERSION": "1", "HOLD": str(hold)}, {"VERSION": "2"}
    async with served(tmp_path) as settings, Harness(app, settings) as harness:
        job = await harness.client.submit("grade", [Photo(n) for n in range(ROWS)], chunk=10)

        async def done(least: int) -> bool:
            return (await job.status()).done >= least

        async with process(settings, "worker", APP, out=tmp_path / "old", environ=old) as first:
            await until(lambda: done(HELD), "the rows that the old version does", 120)
            async with process(settings, "worker", APP, out=tmp_path / "new", environ=new):
                # What the old one does not hold the new one does, beside it.
                await until(lambda: done(HELD + 10), "rows that the new version does", 120)
                assert (await job.status()).status == "open"
                first.kill()
                await first.wait()
                await until(lambda: done(ROWS), "all rows", 120)
                assert (await job.wait()).status == "completed"
        rows = [row async for row in job.results()]
        assert [row.row for row in rows] == list(range(1, ROWS + 1))
        for n, row in enumerate(rows):
            # Nothing is done twice, or lost: what the old one answered stays.
            assert row.answers == (Grade(n, 1 if n < HELD else 2),), row
        assert not await harness.dead()
