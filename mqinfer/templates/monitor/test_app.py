"""The model, a handler called by hand, what is watched, and the stage on a real server."""

from __future__ import annotations

from pathlib import Path

from mqinfer.testing import FakeModels, Harness, nats_only

from app import Review, Verdict, app, judge
from model import Sentiment
from traffic import reviews


def test_the_model_tells_moods_apart() -> None:
    model = Sentiment()
    model.load(Path())
    texts = [review["text"] for review in reviews(50, cross=0.0)]
    assert (model.predict(texts) > 0.5).mean() > 0.9


async def test_a_handler_called_by_hand() -> None:
    with FakeModels({"sentiment": {"pleased": [0.25]}}):
        assert await judge(Review("r1", "two words")) == Verdict("r1", "cross", 0.75, 2)


async def test_the_stage_on_a_real_server(tmp_path: Path) -> None:
    with FakeModels({"sentiment": {"pleased": [0.75]}}):
        async with nats_only(tmp_path) as settings, Harness(app, settings) as harness:
            await harness.publish(Review("r1", "any"), Review("r2", ""))
            await harness.drain("judge")
            assert await harness.messages(Verdict) == [Verdict("r1", "pleased", 0.75, 1)]
            assert len(await harness.dead()) == 1
