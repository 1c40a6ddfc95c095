"""A console that stops while something looks leaves no connection behind."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.settings import Settings
from mqinfer.testing import FakeModels
from tests.console.test_labels import ALIASES, MODELS, told
from tests.support.console import serving
from tests.support.watched_app import app


async def test_a_look_that_goes_on_opens_nothing_after_the_end(nats: Settings, url: str) -> None:
    looking = asyncio.Event()
    with FakeModels(MODELS, aliases=ALIASES):
        async with serving(told(nats, url), app) as served:
            site = served.console.front._site
            assert site is not None
            database = site.database
            assert isinstance(database, ClickHouse)
            await database.ping()

            async def make() -> Mapping[str, Any]:
                looking.set()
                try:
                    await asyncio.Event().wait()
                finally:  # as one whose statement is answered at that moment, and sends the next
                    await database.ping()
                return {}

            page = asyncio.create_task(site.looks.of("page", make, 1).now())
            await looking.wait()
    assert database._client is None
    await asyncio.gather(page, return_exceptions=True)
