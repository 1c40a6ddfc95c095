"""What a replay said becomes the reference of its version, by a promotion or a moved alias."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Annotated

from mqinfer import App, Confidence, Context, Label, Row
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.cli.models import _change
from mqinfer.monitor.follow import Series
from mqinfer.monitor.looking import Monitor, Standing
from mqinfer.monitor.verdict import Word
from mqinfer.replay.promote import Promotions
from mqinfer.replay.runs import Wanted
from mqinfer.settings import Settings
from mqinfer.testing import Harness
from tests.support.replay import Number, runs_of, work

ROWS = 240


class Leaf(Row, frozen=True, table="adopted_leaf"):
    label: Annotated[str, Label()]
    sure: Annotated[float, Confidence()]


def series(version: str, column: str = "label") -> Series:
    return Series("adopted_leaf", column, "grader", version)


async def test_a_promotion_and_a_moved_alias_adopt_what_their_run_said(
    nats: Settings, url: str, db: ClickHouse
) -> None:
    version = ["1"]
    # The same app twice: as it runs, where the handler says which version has answered, and as it
    # is watched, where its stage asks a model.
    running, app = App("adopting"), App("adopting")
    grader = app.model("grader", alias="live")

    @app.stage(name="grade", models=[grader])
    async def asks(number: Number) -> Leaf:
        raise NotImplementedError

    @running.stage
    async def grade(number: Number, ctx: Context) -> AsyncIterator[Leaf]:
        ctx.models["grader"] = version[0]
        rust = number.value % 4 == 0 or number.value >= 2 * ROWS
        yield Leaf(label="rust" if rust else "healthy", sure=0.9)

    settings = Settings.load({}, nats_url=nats.nats_url, blobs=nats.blobs, clickhouse_url=url)
    async with Harness(running, settings) as harness:

        async def live(first: int) -> None:
            await harness.publish(*map(Number, range(first, first + ROWS)))
            async with harness.worker():
                await harness.drain()

        async def replay(name: str, of: str) -> None:
            version[0] = of
            wanted = Wanted(from_seq=1, to_seq=ROWS)
            await runs_of(harness).create(stage="grade", wanted=wanted, name=name)
            await work(harness, name)

        await live(0)
        await replay("better", "2")
        promotions = Promotions(app, runs_of(harness), db)
        await promotions.promote("better")
        monitor = Monitor(app, db)

        async def look() -> list[Standing]:
            await monitor.ensure()  # as workers count what the app that runs says
            return await monitor.look(time.time() + 120)

        found = {one.series: one for one in await look()}
        told = found[series("2")].reference
        assert told is not None
        assert (told.source, told.reference.rows) == ("run better", ROWS)
        assert dict(zip(told.reference.keys, told.reference.counts, strict=True))["rust"] == 60
        assert found[series("2", "sure")].reference is not None
        assert found[series("1")].reference is None  # no run of it was promoted
        await promotions.undo("better")
        await promotions.promote("better")
        again = {one.series: one for one in await look()}
        assert again[series("2")].reference == told

        # Version 2 answers live from now on, and is watched at once.
        await live(ROWS)
        (one,) = (one for one in await look() if one.series == series("2"))
        assert (one.verdict.word, one.verdict.rows) == (Word.STEADY, ROWS)
        await live(2 * ROWS)
        (one,) = (one for one in await look() if one.series == series("2"))
        assert one.verdict.word is Word.CHANGED
        assert [episode.rows <= 2 * ROWS for episode in one.alarms(time.time())] == [True]

        # An alias that is moved adopts the run of its version, which nobody promoted.
        await replay("best", "3")
        await replay("bad", "4")
        await promotions.discard("bad")
        for moved in ("4", "3"):
            await _change(app, settings, {("grader", "live"): moved}, force=True)
        sources = {
            one.series.version: one.reference.source
            for one in await look()
            if one.reference is not None
        }
        assert sources == {"2": "run better", "3": "run best"}
