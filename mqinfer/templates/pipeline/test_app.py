"""The model, a handler called by hand, and the stage on a real server."""

from __future__ import annotations

from pathlib import Path

import pytest
from mqinfer import Context, Reject
from mqinfer.testing import FakeModels, Harness, nats_only

from app import Review, Verdict, app, judge
from model import Sentiment


def test_the_model_tells_moods_apart() -> None:
    model = Sentiment()
    model.load(Path())
    pleased, cross = model.predict(["I love it", "It broke"])
    assert pleased > 0.5 > cross


async def test_a_handler_called_by_hand() -> None:
    ctx = Context(id="r1", stage="judge", sequence=1)
    with FakeModels({"sentiment": {"pleased": [0.875]}}) as models:
        assert await judge(Review("r1", "any"), ctx) == Verdict("r1", "pleased", 0.875)
        assert models.calls("sentiment")[0].inputs["text"].tolist() == ["any"]
        with pytest.raises(Reject, match="no text"):
            await judge(Review("r2", " "), ctx)


async def test_the_stage_on_a_real_server(tmp_path: Path) -> None:
    with FakeModels({"sentiment": {"pleased": [0.25]}}) as models:
        models.fail("sentiment", "out of memory")  # once: the stage tries again
        async with nats_only(tmp_path) as settings, Harness(app, settings) as harness:
            await harness.publish(Review("r1", "any"), Review("r2", ""))
            await harness.drain("judge")
            assert await harness.messages(Verdict) == [Verdict("r1", "cross", 0.25)]
            assert len(await harness.dead()) == 1
