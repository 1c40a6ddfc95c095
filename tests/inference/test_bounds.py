"""Bounds: calls outside of handlers end in time, without a timer each."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from mqinfer.errors import ModelTimeout
from mqinfer.inference import bounds
from mqinfer.inference.inference import Inference
from mqinfer.testing import until
from tests.support.inference import Server

X = {"x": np.ones(1, np.float32)}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(bounds, "LOOK", 0.02)
    return Server()


@pytest.mark.parametrize("seconds", [0.01, 0.3])
async def test_one_that_nobody_answers_ends_and_its_neighbour_does_not(
    server: Server, seconds: float
) -> None:
    async with Inference(server) as inference:
        await inference("double", None, X)
        server.gate.clear()
        patient = asyncio.create_task(inference("double", None, X, timeout=600.0))
        with pytest.raises(ModelTimeout, match=rf"no answer within {seconds:g} s"):
            await inference("double", None, X, timeout=seconds)
        server.gate.set()
        assert (await patient)["y"].tolist() == [2.0]
        (queue,) = inference._queues.values()
        assert repr(queue.bounds) == "Bounds(0 far away, 0 near)"
        # Nothing looks any more, and nothing is left that could run out.
        await until(lambda: queue.bounds._next is None, "the last look")


async def test_a_cancelled_call_leaves_no_bound(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "LOOK", 300.0)
    async with Inference(server) as inference:
        await inference("double", None, X)
        server.gate.clear()
        calls = [
            asyncio.create_task(inference("double", None, X, timeout=seconds))
            for seconds in (500.0, 5000.0)
        ]
        (queue,) = inference._queues.values()
        await until(lambda: repr(queue.bounds) == "Bounds(1 far away, 1 near)")
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        assert all(call.cancelled() for call in calls)
        assert repr(queue.bounds) == "Bounds(0 far away, 0 near)"
