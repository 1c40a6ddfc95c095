"""The model, a handler called by hand, and the stage on a real server."""

from __future__ import annotations

from pathlib import Path

from mqinfer.testing import FakeModels, Harness, nats_only

from app import Note, Vector, app, embed
from model import Embedding


def test_what_is_alike_is_near() -> None:
    one, near, far = Embedding().predict(["a bicycle tyre", "bicycle tyres", "soup with noodles"])
    assert one @ near > 0.5 > one @ far


async def test_a_handler_called_by_hand() -> None:
    with FakeModels({"embedding": {"vector": [0.0, 1.0]}}) as models:
        assert await embed(Note("n1", "any")) == Vector("n1", "any", [0.0, 1.0])
        assert models.calls("embedding")[0].inputs["text"].tolist() == ["any"]


async def test_the_stage_on_a_real_server(tmp_path: Path) -> None:
    with FakeModels({"embedding": {"vector": [0.0, 1.0]}}):
        async with nats_only(tmp_path) as settings, Harness(app, settings) as harness:
            await harness.publish(Note("n1", "any"))
            await harness.drain("embed")
            assert await harness.messages(Vector) == [Vector("n1", "any", [0.0, 1.0])]
