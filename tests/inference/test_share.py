"""A share of the request slots: the rule, the engine under it, and a run on a real Triton."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer import App
from mqinfer import context as contexts
from mqinfer.adapters.triton import TritonClient
from mqinfer.backoff import Backoff
from mqinfer.context import Context
from mqinfer.errors import ConfigurationError, ModelError, NotConnected
from mqinfer.inference.inference import Inference
from mqinfer.inference.limits import AdaptiveLimit
from mqinfer.inference.share import MAX_REST, Share
from mqinfer.ports import InferenceServer, ModelInfo, ModelReply, TensorInfo
from mqinfer.replay.runs import Wanted
from mqinfer.replay.work import RunWork
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from mqinfer.worker.worker import Worker
from tests.support.models import save_table
from tests.support.replay import Double, Number, runs_of
from tests.support.triton import serving

parts = st.floats(0.001, 1.0)
limits = st.integers(1, 64)


@given(part=parts, limit=limits, most=st.integers(1, 1024))
def test_never_more_than_the_share_and_never_nothing(part: float, limit: int, most: int) -> None:
    share = Share(part)
    slots, items = share.slots(limit, 0.0), share.items(most)
    assert 1 <= slots <= max(1.0, part * limit + 1e-6)
    assert max(1.0, part * most - 1e-6) <= items < part * most + 1
    assert Share(1.0).slots(limit, 0.0) == limit
    assert Share(1.0).items(most) == most


@pytest.mark.parametrize(
    ("part", "limit", "slots", "most", "items"),
    [
        (0.29, 100, 29, 100, 29),
        (0.5, 2, 1, 64, 32),
        (0.25, 2, 1, 64, 16),
        (0.1, 8, 1, 1, 1),
        (0.5, 5, 2, 5, 3),
    ],
)
def test_shares_of_slots_and_items(
    part: float, limit: int, slots: int, most: int, items: int
) -> None:
    assert (Share(part).slots(limit, 0.0), Share(part).items(most)) == (slots, items)


@given(
    part=parts,
    limit=limits,
    seconds=st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=50),
)
def test_a_slot_is_busy_for_no_more_than_its_part_of_the_time(
    part: float, limit: int, seconds: list[float]
) -> None:
    share, now, busy, bounded = Share(part), 0.0, 0.0, False
    for request in seconds:
        assert share.slots(limit, now) >= 1
        now += request
        busy += request
        share.used(request, limit, now)
        rest = share.rest(now)
        assert (share.slots(limit, now) == 0) == (rest > 0)
        # A sum with the clock and back again costs the last digits.
        assert rest <= MAX_REST or rest == pytest.approx(MAX_REST)
        bounded = bounded or rest == pytest.approx(MAX_REST)
        now += rest
        while share.rest(now):  # what is left of a float's last digit
            now = float(np.nextafter(now, np.inf))
        if part * limit >= 1:
            assert rest == 0
        elif not bounded:
            assert busy / now <= part * limit * 1.001


@pytest.mark.parametrize("part", [0, -0.1, 1.01, float("nan")])
def test_what_is_no_share_is_refused(part: float) -> None:
    with pytest.raises(ValueError, match="at most 1"):
        Share(part)


class Slow:
    """y = 2 x, in a time of its own; it keeps when each request began and ended, and its items."""

    def __init__(self, seconds: float = 0.0, *, max_batch: int = 8):
        self.seconds = seconds
        self.max_batch = max_batch
        self.requests: list[tuple[float, float, int]] = []
        self.under_way = self.most = 0

    async def describe(self, model: str, version: str | None = None) -> ModelInfo:
        kind = np.dtype(np.int64)
        tensors = (TensorInfo("x", kind, (1,)),), (TensorInfo("y", kind, (1,)),)
        return ModelInfo(model, ("1",), *tensors, max_batch_size=self.max_batch)

    async def infer(
        self, model: str, version: str | None, inputs: Mapping[str, Any], *, timeout: float | None
    ) -> ModelReply:
        began = time.monotonic()
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.under_way -= 1
        self.requests.append((began, time.monotonic(), len(inputs["x"])))
        if (inputs["x"] < 0).any():
            raise ModelError("negative")
        return ModelReply({"y": inputs["x"] * 2}, "1")

    async def ready(self) -> None:
        pass

    async def reload(self, model: str) -> None:
        pass

    async def close(self) -> None:
        pass


def fixed(slots: int) -> AdaptiveLimit:
    return AdaptiveLimit(minimum=slots, maximum=slots, start=slots)


def sharing(server: InferenceServer, part: float, slots: int) -> Inference:
    inference = Inference(server, limit=lambda: fixed(slots))
    inference.share(part)
    return inference


async def ask(inference: Inference, value: int) -> int:
    answer = await inference("double", None, {"x": np.array([value], np.int64)})
    return int(answer["y"][0])


@pytest.mark.parametrize(
    ("part", "slots", "under_way", "items"), [(0.5, 4, 2, 4), (0.25, 8, 2, 2), (1.0, 4, 4, 8)]
)
async def test_requests_and_items_under_way(
    part: float, slots: int, under_way: int, items: int
) -> None:
    server = Slow(0.001)
    async with sharing(server, part, slots) as inference:
        answers = await asyncio.gather(*(ask(inference, value) for value in range(200)))
        assert answers == [2 * value for value in range(200)]
    assert server.most == under_way
    assert max(count for _, _, count in server.requests) == items
    assert inference.statistics().tasks == 0


async def test_less_than_a_slot_rests_after_each_request() -> None:
    server = Slow(0.002)
    async with sharing(server, 0.25, 2) as inference:  # half a slot, two items
        answers = await asyncio.gather(
            *(ask(inference, value) for value in [*range(19), -1]), return_exceptions=True
        )
        assert answers[:19] == [2 * value for value in range(19)]
        assert isinstance(answers[19], ModelError)
    assert server.most == 1
    assert max(count for _, _, count in server.requests) == 2
    # The last pair is tried again one by one, inside of the same use of the slot.
    for (began, ended, _), (next_began, _, _) in zip(
        server.requests[:9], server.requests[1:10], strict=True
    ):
        assert next_began - ended >= (ended - began) * 0.999


async def test_an_idle_model_rests_without_a_task_and_wakes() -> None:
    server = Slow(0.005)
    async with sharing(server, 0.1, 1) as inference:
        assert await ask(inference, 1) == 2
        await until(lambda: inference.statistics().tasks == 0)
        assert await ask(inference, 2) == 4
    assert len(server.requests) == 2


async def test_cancel_and_close_during_a_rest_leave_nothing() -> None:
    server = Slow(0.02)
    async with sharing(server, 0.01, 1) as inference:
        assert await ask(inference, 1) == 2  # and then it rests for two seconds
        waiting = [asyncio.create_task(ask(inference, value)) for value in range(3)]
        await until(lambda: inference.statistics().queues[0].batcher.waiting == 3)
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        assert inference.statistics().queues[0].batcher.waiting == 2
        await until(lambda: inference.statistics().tasks == 0)
    for task in waiting[1:]:
        with pytest.raises(NotConnected):
            await task
    assert len(server.requests) == 1
    (queue,) = inference._queues.values()
    assert queue._rest is not None
    assert queue._rest.cancelled()


async def test_close_during_a_request_begins_no_rest() -> None:
    server = Slow(3600)
    async with sharing(server, 0.01, 1) as inference:
        asking = asyncio.create_task(ask(inference, 1))
        await until(lambda: server.under_way)
    with pytest.raises(NotConnected):
        await asking
    (queue,) = inference._queues.values()
    assert queue._rest is None
    assert inference.statistics().tasks == 0


async def test_waiting_for_a_share_is_not_the_handlers_time() -> None:
    server = Slow(0.005, max_batch=1)
    async with sharing(server, 0.2, 1) as inference:

        async def handler() -> Context:
            context = Context(id="1", stage="s", sequence=1)
            contexts.current.set(context)
            await ask(inference, 1)
            return context

        found = await asyncio.gather(*(asyncio.create_task(handler()) for _ in range(5)))
    # Four requests and their rests were before the last one.
    assert max(context.waited for context in found) >= 4 * 0.005 / 0.2 * 0.9
    assert all(context.waiting_since is None for context in found)


class Watched(TritonClient):
    """The real adapter, which counts."""

    under_way = most = items = 0

    async def infer(
        self, model: str, version: str | None, inputs: Mapping[str, Any], *, timeout: float | None
    ) -> ModelReply:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.items = max(self.items, len(inputs["index"]))
        try:
            return await super().infer(model, version, inputs, timeout=timeout)
        finally:
            self.under_way -= 1


@pytest.mark.parametrize(("share", "items"), [(0.5, 8), (0.1, 2)])
async def test_a_run_keeps_to_its_share_of_triton(
    nats: Settings, tmp_path: Path, share: float, items: int
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    save_table(models, "1", 3.0)
    app = App("shared")
    model = app.model("table")
    seen: set[int] = set()

    @app.stage(max_in_flight=64, backoff=Backoff(initial=0.01, maximum=0.02))
    async def double(number: Number) -> Double:
        answer = await model(index=np.array([number.value], np.int64))
        if number.value not in seen:  # each is asked for twice
            seen.add(number.value)
            raise ValueError("again")
        return Double(int(answer["value"][0]))

    async with serving(tmp_path, models) as triton, Harness(app, nats) as harness:
        await harness.publish(*(Number(value) for value in range(100)))
        run = await runs_of(harness).create(stage="double", wanted=Wanted(), name="r1", share=share)
        server = Watched(triton.url)
        inference = Inference(server)
        services = replace(harness.services, inference=inference)
        async with asyncio.timeout(60):
            await Worker(services, RunWork(app, services, run, runs_of(harness))).run()
        await server.close()
        (queue,) = inference.statistics().queues
        assert queue.items == 200
        assert server.most <= max(1, share * 8)  # the adaptive limit's most is 8
        assert server.items == items
        stored = await harness.stored(subject="shared.run.r1.double")
        found = sorted(int(raw.data[len(b'{"value":') : -1]) for raw in stored)
        assert found == [3 * value for value in range(100)]


async def test_a_run_keeps_its_share(nats: Settings) -> None:
    app = App("kept")

    @app.stage
    async def double(number: Number) -> Double:
        return Double(number.value)

    async with Harness(app, nats) as harness:
        await harness.publish(Number(1))
        runs = runs_of(harness)
        for share in (0.0, -1.0, 1.5, float("nan")):
            with pytest.raises(ConfigurationError, match="a share is more than 0"):
                await runs.create(stage="double", wanted=Wanted(), share=share)
        await runs.create(stage="double", wanted=Wanted(), name="r1", share=0.25)
        assert (await runs.get("r1")).share == 0.25
