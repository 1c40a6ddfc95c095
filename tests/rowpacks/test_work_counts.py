"""A guard against rows that travel one by one: what they cost is counted on the wire, not timed."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections import Counter

import pytest

from mqinfer import App, Message, Row, Settings
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.adapters.natsclient import LeanClient
from mqinfer.client import Client
from mqinfer.testing import Harness, until

ROWS = 1_000
_PUBLISHED = re.compile(rb"H?PUB (\S+) ")


class Plate(Message):
    n: int


class Well(Row, table="well", order_by="plate"):
    plate: int


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What all connections of the test publish: how many under each subject."""
    sent: Counter[str] = Counter()
    write = LeanClient.write

    def counting(client: LeanClient, data: bytes) -> None:
        if found := _PUBLISHED.match(data):
            subject = found[1].decode()
            if subject.startswith("$JS.ACK."):  # of which consumer; the rest tells messages apart
                subject = f"ack of {subject.split('.')[3]}"
            sent[subject] += 1
        write(client, data)

    monkeypatch.setattr(LeanClient, "write", counting)
    return sent


async def test_a_thousand_rows_cost_few_publishes_acknowledgements_and_inserts(
    nats: Settings, url: str, db: ClickHouse, wire: Counter[str]
) -> None:
    app = App("packs-cost")
    begun, together = 0, asyncio.Event()

    @app.stage(concurrency=ROWS)
    async def measure(plate: Plate) -> Well:
        nonlocal begun
        begun += 1
        if begun == ROWS:  # all end in one turn of the loop, however busy the machine is
            together.set()
        await together.wait()
        return Well(plate.n)

    async with Harness(app, dataclasses.replace(nats, clickhouse_url=url)) as harness:
        await harness.publish(*(Plate(n) for n in range(ROWS)))
        await harness.drain("measure")
        async with harness.worker("sink-well") as worker:

            async def stored() -> bool:
                return await harness.lag("sink-well") == 0

            await until(stored, "the rows")
            sink = worker.services.metrics.sink("well")
    assert await db.query("SELECT uniqExact(plate) AS n FROM well") == [{"n": ROWS}]
    packs = wire["packs-cost.=pack.well"]
    assert packs == 1
    assert wire["packs-cost.well"] == 0
    assert wire["ack of sink-well-packs"] == packs
    assert wire["ack of sink-well"] == 0
    assert wire["ack of measure"] >= ROWS  # a message of its own is one
    assert (sink.rows, sink.retries) == (ROWS, 0)
    assert sink.blocks == 1


async def test_a_thousand_rows_of_the_client_cost_few_publishes(
    nats: Settings, url: str, wire: Counter[str]
) -> None:
    app = App("packs-client")

    @app.stage
    async def measure(plate: Plate) -> Well:
        return Well(plate.n)

    async with Harness(app, dataclasses.replace(nats, clickhouse_url=url)) as harness:
        await harness.publish(*(Well(n) for n in range(ROWS)))
        assert wire["packs-client.=pack.well"] <= ROWS // 100
        assert wire["packs-client.well"] == 0
        assert len(await harness.messages(Well)) == ROWS
        bare = Client(App("packs-client"), harness.services)  # stages elsewhere may read its rows
        await bare.publish_all([Well(0), Well(1)])
        assert wire["packs-client.well"] == 2
