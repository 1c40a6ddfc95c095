"""The library's way in: `mqinfer.connect`, and its old name."""

from __future__ import annotations

import pytest

import mqinfer
from mqinfer import App, Message, Settings
from mqinfer.testing import Harness


class Number(Message):
    value: int


app = App("clients")


@app.stage
async def see(number: Number) -> None: ...


async def test_a_client_publishes(nats: Settings) -> None:
    async with mqinfer.connect(app, nats) as client:
        assert await client.publish(Number(1), id="one") == "one"
    async with Harness(app, nats) as harness:
        assert await harness.messages(Number) == [Number(1)]


async def test_the_old_name_says_what_to_write_instead(nats: Settings) -> None:
    with pytest.warns(DeprecationWarning, match=r"write mqinfer\.connect\(app\)"):
        connected = app.connect(nats)
    async with connected as client:
        await client.publish(Number(2))
    async with Harness(app, nats) as harness:
        assert await harness.messages(Number) == [Number(2)]
