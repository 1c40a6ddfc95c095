"""How those who wait look for themselves: each soon, ten thousand not all at once, none never."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

import mqinfer
from mqinfer.requests import watch
from mqinfer.requests.watch import HEARTBEAT, LOOKS, Pace, Watch
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from tests.faults.processes import Proxy
from tests.requests.test_through import Grade, Photo, pipeline, truth


def test_the_pace() -> None:
    pace = Pace()
    assert pace.seconds == HEARTBEAT
    pace.waiting = 10_000
    assert pace.seconds * LOOKS == 10_000


async def test_who_waits_is_told_of_a_reconnection() -> None:
    one = Watch(Pace())
    one.again()
    await one.changed(60)
    assert one.take_events(0) is None  # read them from the stream
    assert one.silent


async def test_an_end_that_was_pushed_while_the_connection_hung(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By themselves they would look in an hour."""
    monkeypatch.setattr(watch, "HEARTBEAT", 3600.0)
    app, port = pipeline(), urlsplit(nats.nats_url).port
    assert port is not None
    async with Harness(app, nats) as harness, Proxy(port) as proxy:
        behind = replace(nats, nats_url=nats.nats_url.replace(f":{port}", f":{proxy.port}"))
        async with mqinfer.connect(app, behind) as client:
            asked = await harness.client.request(Photo(4))

            async def kinds() -> list[str]:
                request: mqinfer.Request[Grade] = await client.get_request(asked.id)
                return [event.kind async for event in request]

            async def result() -> tuple[Grade, ...]:
                found: mqinfer.Request[Grade] = await client.get_request(asked.id)
                return await found.result(wait=120)

            following, waiting = asyncio.create_task(kinds()), asyncio.create_task(result())
            core = client._services.core
            await until(lambda: len(core._client.renewed) == 2, "those who listen")  # type: ignore
            await client._services.broker.flush()
            assert proxy.hang()
            async with harness.worker():
                assert await asked.result(wait=60) == truth(4)
            proxy.drop()
            assert await waiting == truth(4)
            told = await following
            assert (told.count("answer"), told[-1]) == (4, "end")
