"""One birth for one row, however it comes: through two versions, repeats, retries and replays."""

from __future__ import annotations

import datetime
from typing import Any

from mqinfer import App, Row
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.adapters.scan import Scanner
from mqinfer.birth import new_id
from mqinfer.identity import MSG_ID
from mqinfer.operate.letters import DeadLetters, Selection
from mqinfer.replay.promote import Promotions
from mqinfer.replay.runs import Wanted
from mqinfer.settings import Settings
from mqinfer.testing import Harness
from tests.support.replay import Double, Number, runs_of, work


class Born(Row, frozen=True, table="born"):
    value: int


async def births(db: ClickHouse, run: str = "") -> dict[int, datetime.date]:
    """The day of each value; no value has two rows, in whatever partitions they lie."""
    rows = await db.query(
        "SELECT value, uniqExact(_born) AS n, toDate(any(_born)) AS day FROM born__storage "
        "WHERE _run = {run:String} GROUP BY value ORDER BY value",
        {"run": run},
    )
    assert all(row["n"] == 1 for row in rows)
    return {row["value"]: row["day"] for row in rows}


async def test_all_that_comes_of_one_input_has_its_birth(
    nats: Settings, db: ClickHouse, url: str
) -> None:
    settings = Settings.load({}, nats_url=nats.nats_url, blobs=nats.blobs, clickhouse_url=url)
    app, failing = App("births"), {3}

    @app.stage
    async def twice(number: Number) -> Double:
        return Double(number.value)

    @app.stage(attempts=1)
    async def store(double: Double) -> Born:
        if double.value in failing:
            raise ValueError("not yet")
        return Born(double.value)

    nobody = datetime.date(1970, 1, 1)
    async with Harness(app, settings) as harness:
        client: Any = harness.client
        broker: Any = harness.services.broker
        subject = app.subject(Number)
        began = datetime.datetime.now(datetime.UTC).date()
        await client.publish(Number(0))
        await client.publish(Number(1), id="one")
        await client.publish(Number(2), id="two@2026-05-01")
        await client.publish(Number(3), id="three@2026-05-02")
        # Strangers: with no id, and with one that tells the time.
        await harness.publish_bytes(subject, b'{"value": 4}')
        await harness.publish_bytes(subject, b'{"value": 5}', {MSG_ID: new_id()})
        await harness.drain()
        found = await births(db)
        ended = datetime.datetime.now(datetime.UTC).date()
        assert found.keys() == {0, 1, 2, 4, 5}
        assert found[1] == found[4] == nobody
        assert found[2] == datetime.date(2026, 5, 1)
        assert began <= found[0] <= found[5] <= ended
        # What was given up is sent back: another place and another time, the same birth.
        letters = DeadLetters(app, Scanner(broker.client), broker, runs_of(harness))
        failing.clear()
        assert (await letters.retry(Selection())).done == 1
        await harness.drain()
        found = await births(db)
        assert found[3] == datetime.date(2026, 5, 2)
        dead = await db.query("SELECT toDate(_born) AS day FROM mqinfer_dead_letters")
        assert dead == [{"day": found[3]}]
        # Published again beyond the duplicate window, as on a later day: stored again, shown once.
        for value, identity in ((1, "one"), (2, "two@2026-05-01"), (3, "three@2026-05-02")):
            await harness.publish_bytes(
                subject, b'{"value": %d}' % value, {MSG_ID: f"later-{value}", "Mq-Id": identity}
            )
        await harness.drain()
        assert await births(db) == found
        rows = await db.query("SELECT value FROM born ORDER BY value")
        assert [row["value"] for row in rows] == [0, 1, 2, 3, 4, 5]
        # A run over all of it, promoted and undone.
        runs = runs_of(harness)
        await runs.create(stage="twice", wanted=Wanted(), name="again", downstream=True)
        await work(harness, "again")
        await harness.drain()
        assert await births(db, "again") == found
        promotions = Promotions(app, runs, db)
        for step in (promotions.promote, promotions.undo):
            await step("again")
            rows = await db.query("SELECT value, _run FROM born ORDER BY value")
            assert [row["value"] for row in rows] == [0, 1, 2, 3, 4, 5]
            assert {row["_run"] for row in rows} == {"again" if step == promotions.promote else ""}


async def test_two_versions_that_handle_one_input_make_copies_of_one_row(
    nats: Settings, db: ClickHouse, url: str
) -> None:
    """What a worker of an earlier version hands on is the lineage, and that is all it takes."""
    settings = Settings.load({}, nats_url=nats.nats_url, blobs=nats.blobs, clickhouse_url=url)
    app = App("versions")

    @app.stage
    async def store(double: Double) -> Born:
        return Born(double.value)

    header = {"Mq-Ancestors": "photo@2026-05-03 leaf", "Mq-Stage": "store", "Mq-Id": "row"}
    async with Harness(app, settings) as harness:
        for attempt in range(2):  # more than the duplicate window apart
            await harness.publish_bytes(
                app.subject(Born), b'{"value": 1}', {**header, MSG_ID: f"{attempt}"}
            )
            await harness.drain()
    assert await births(db) == {1: datetime.date(2026, 5, 3)}
    assert len(await db.query("SELECT * FROM born")) == 1
