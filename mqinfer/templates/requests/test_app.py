"""The model, a handler called by hand, and a request that a real server and a worker answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from mqinfer import Reject
from mqinfer.errors import RequestRejected
from mqinfer.testing import FakeModels, Harness, nats_only

from app import Review, Verdict, app, judge
from model import Sentiment


def test_the_model_tells_moods_apart() -> None:
    model = Sentiment()
    model.load(Path())
    pleased, cross = model.predict(["I love it", "It broke"])
    assert pleased > 0.5 > cross


async def test_a_handler_called_by_hand() -> None:
    with FakeModels({"sentiment": {"pleased": [0.875]}}):
        assert await judge(Review("any", "r1")) == Verdict("r1", "pleased", 0.875)
        with pytest.raises(Reject, match="has a text"):
            await judge(Review(" "))


async def test_who_asks_gets_an_answer(tmp_path: Path) -> None:
    parts = ("judge", "mqinfer-requests-judge", "mqinfer-tracker")  # all but the sinks of tables
    with FakeModels({"sentiment": {"pleased": [0.25]}}):
        async with (
            nats_only(tmp_path) as settings,
            Harness(app, settings) as harness,
            harness.worker(*parts),
        ):
            request = await harness.client.request(Review("any", "r1"), wait=30)
            assert await request.result() == (Verdict("r1", "cross", 0.25),)
            refused = await harness.client.request(Review(""), wait=30)
            with pytest.raises(RequestRejected, match="has a text"):
                await refused.result()
