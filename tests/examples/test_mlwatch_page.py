"""What the demo of MLwatch sees on the labels page, in a real browser; the model is a fake.

The whole of it, with the real model and an alarm, is `make demo-mlwatch`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import mqinfer
from examples.mlwatch import photographs
from examples.mlwatch.app import Picture, app
from examples.mlwatch.consoleprocess import TOKEN
from examples.mlwatch.photographs import path
from examples.requests.local import browser
from mqinfer import Blob, Settings
from mqinfer.testing import FakeModels, Harness
from tests.support.console import running

pytest.importorskip("playwright")
pytestmark = pytest.mark.skipif(browser() is None, reason="no chromium on the PATH")


def dark_or_light(image: Any) -> dict[str, Any]:
    """A model of two labels."""
    name = b"night sky" if image.mean() < 40 else b"daylight"
    return {"probabilities": [0.25, 0.75], "best": [1], "names": [name]}


async def test_rows_are_seen_as_they_come_with_their_photographs(nats: Settings, url: str) -> None:
    from examples.mlwatch.page import looking

    store = photographs.folder(("day", "night"), each=4)
    settings = dataclasses.replace(nats, clickhouse_url=url, blobs=str(store))
    program = browser()
    assert program is not None
    with FakeModels({"lite0": dark_or_light}):
        async with (
            Harness(app, settings) as harness,
            harness.worker(),
            running(settings, app, token=TOKEN) as console,
            mqinfer.connect(app, settings) as client,
            looking(program, str(console.url)) as page,
        ):
            day, night = (path(world, "16_251", 1) for world in ("day", "night"))
            await client.publish_all([Picture(Blob.at(day))] * 3)
            await page.labels()
            await page.more("daylight", 2)
            assert await page.rows("night sky") == 0
            await client.publish(Picture(Blob.at(night)))
            await page.more("night sky", 0)
            assert await page.rows("daylight") == 3
            assert await page.pictures("night sky") == 1
            assert page.mistakes == []
