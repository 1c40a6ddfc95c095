"""Models that answer in parts: taken as they come, left early, broken off, killed; and refused."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqinfer.context import Context, current
from mqinfer.errors import BadTensor, ModelError, ModelTimeout, NotConnected, Unavailable
from mqinfer.inference.inference import Inference
from mqinfer.inference.limits import STREAMS, AdaptiveLimit
from mqinfer.inference.tensors import part as part_of
from mqinfer.model import ClientInference, Model
from mqinfer.model import inference as current_inference
from mqinfer.opened import Opened
from mqinfer.ports import ModelReply
from tests.support.inference import (
    BAD,
    COUNT,
    DEADLY,
    DOUBLE,
    Leaps,
    Server,
    ask,
    inference_on,
    slots,
    until,
    x,
)


@pytest.fixture
def server() -> Server:
    return Server(COUNT, DOUBLE)


@pytest.fixture
async def inference(server: Server) -> AsyncIterator[Inference]:
    async with inference_on(server) as inference:
        yield inference


async def collect(inference: Inference, value: float, model: str = "count") -> list[float]:
    return [part["y"].item() async for part in inference.stream(Model(model), {"x": x(value)})]


async def test_the_parts_of_an_item_come_one_by_one(server: Server, inference: Inference) -> None:
    server.gate.clear()
    stream = inference.stream(Model("count"), {"x": x(3)})
    first = await anext(stream)
    assert (first["y"].tolist(), first.model, first.version) == ([0], "count", "1")
    server.gate.set()
    assert [part["y"].tolist() async for part in stream] == [[1], [2]]
    [queue] = inference.statistics().queues
    assert (queue.requests, queue.items, queue.calls, queue.batcher.busy) == (1, 1, 0, 0)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 60), max_size=12), st.integers(1, 4))
def test_every_item_gets_its_own_parts_in_order(counts: list[int], slot_count: int) -> None:
    async def scenario() -> None:
        server = Server(COUNT)
        async with inference_on(server, limit=slots(slot_count)) as inference:
            found = await asyncio.gather(*(collect(inference, count) for count in counts))
        assert found == [list(range(count)) for count in counts]
        assert server.most_under_way <= slot_count
        assert all(items == 1 for _, _, items in server.requests)

    asyncio.run(scenario())


async def test_a_handle_streams_in_a_handler_and_notes_who_answered(inference: Inference) -> None:
    current_inference.set(inference)
    context = Context(id="1", stage="s", sequence=1)
    current.set(context)
    assert [part["y"].item() async for part in Model("count").stream(x=x(2))] == [0, 1]
    assert context.models == {"count": "1"}


async def test_any_other_model_gives_one_part(inference: Inference) -> None:
    assert await collect(inference, 4, "double") == [8]


async def test_a_call_is_told_to_take_the_parts(server: Server, inference: Inference) -> None:
    [call] = ask(inference, 1, model="count")
    with pytest.raises(ModelError, match=r"async for part in model.stream\(...\)"):
        await call
    assert server.requests == []


async def test_what_does_not_fit_is_refused_before_it_is_sent(inference: Inference) -> None:
    with pytest.raises(BadTensor, match="float64"):
        await anext(inference.stream(Model("count"), {"x": np.zeros(1)}))


async def test_an_item_that_is_refused_fails_alone(inference: Inference) -> None:
    with pytest.raises(ModelError, match="negative"):
        await collect(inference, BAD)
    assert await collect(inference, 2) == [0, 1]


# --- callers that leave, or are slow ------------------------------------------------------------


async def test_leaving_the_loop_early_ends_the_request(
    server: Server, inference: Inference
) -> None:
    current_inference.set(inference)
    async for part in Model("count").stream(x=x(1_000_000)):
        if part["y"].item() == 3:
            break
    await until(lambda: server.cancelled)
    await until(lambda: inference.statistics().queues[0].batcher.busy == 0)
    assert await collect(inference, 2) == [0, 1]


@pytest.mark.parametrize("begun", [True, False])
async def test_a_cancelled_caller_ends_its_request(
    server: Server, inference: Inference, begun: bool
) -> None:
    server.gate.clear()
    other = asyncio.create_task(collect(inference, 2))
    await until(lambda: server.parts)
    if begun:
        server.gate.set()
        await other
        server.gate.clear()
    caller = asyncio.create_task(collect(inference, 1_000_000))
    await until(lambda: sum(queue.calls for queue in inference.statistics().queues) == 2 - begun)
    if begun:
        await until(lambda: server.under_way)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    server.gate.set()
    assert await other == [0, 1]
    await until(lambda: server.under_way == 0)
    assert server.cancelled == begun


async def test_a_slow_caller_holds_up_its_model(server: Server, inference: Inference) -> None:
    stream = inference.stream(Model("count"), {"x": x(10_000)})
    await anext(stream)
    for _ in range(200):
        await asyncio.sleep(0)
    held = server.parts
    assert held <= 20
    for _ in range(30):
        await anext(stream)
    assert server.parts > held
    await stream.aclose()
    await until(lambda: server.under_way == 0)


async def test_outside_of_a_handler_each_part_has_the_timeout(
    server: Server, inference: Inference
) -> None:
    server.gate.clear()
    stream = inference.stream(Model("count", timeout=0.05), {"x": x(2)})
    await anext(stream)
    with pytest.raises(ModelTimeout, match="model count: no answer within"):
        await anext(stream)
    await until(lambda: server.cancelled == 1)


async def test_the_wait_behind_others_is_not_the_handlers_time(
    server: Server, inference: Inference
) -> None:
    server.gate.clear()
    other = asyncio.create_task(collect(inference, 2))
    await until(lambda: server.parts)
    context = Context(id="1", stage="s", sequence=1)
    current.set(context)
    caller = asyncio.create_task(collect(inference, 2))
    await until(lambda: context.waiting_since is not None)
    server.gate.set()
    await asyncio.gather(other, caller)
    assert context.waiting_since is None
    assert context.waited > 0


async def test_a_client_streams_from_another_event_loop(inference: Inference) -> None:
    opened: Opened[Inference] = Opened()
    with opened.offered(None, inference) as one:
        client = ClientInference(one)  # type: ignore[arg-type]

        async def elsewhere() -> tuple[list[float], float]:
            parts = [part async for part in client.stream(Model("count"), {"x": x(3)})]
            stream = client.stream(Model("count"), {"x": x(1_000_000)})
            first = await anext(stream)
            await stream.aclose()
            return [part["y"].item() for part in parts], first["y"].item()

        assert await asyncio.to_thread(asyncio.run, elsewhere()) == ([0, 1, 2], 0)
    await until(lambda: inference.statistics().queues[0].calls == 0)


async def test_closing_ends_those_who_wait(server: Server) -> None:
    server.gate.clear()
    async with Inference(server) as inference:
        caller = asyncio.create_task(collect(inference, 3))
        await until(lambda: server.parts)
    with pytest.raises(NotConnected):
        await caller


# --- outages ------------------------------------------------------------------------------------


async def test_an_outage_before_the_first_part_is_waited_out(
    server: Server, inference: Inference
) -> None:
    server.down = "connection refused"
    caller = asyncio.create_task(collect(inference, 3))
    await until(lambda: inference.statistics().blocked)
    server.down = None
    assert await caller == [0, 1, 2]


async def test_an_answer_that_breaks_off_is_the_callers_to_ask_for_again(
    server: Server, inference: Inference
) -> None:
    server.fault, server.breaks_after = Unavailable("connection reset"), 2
    stream = inference.stream(Model("count"), {"x": x(5)})
    assert [(await anext(stream))["y"].item() for _ in range(2)] == [0, 1]
    with pytest.raises(Unavailable, match="count: its answer broke off after 2 parts") as error:
        await anext(stream)
    assert type(error.value) is Unavailable
    server.fault = None
    assert await collect(inference, 5) == [0, 1, 2, 3, 4]


async def test_an_error_after_parts_is_the_items_own(server: Server, inference: Inference) -> None:
    server.fault, server.breaks_after = ModelError("out of tokens"), 2
    with pytest.raises(ModelError, match="out of tokens"):
        await collect(inference, 5)
    assert server.requests == [("count", None, 1)]
    assert inference.statistics().queues[0].refused == 1


async def test_an_item_that_kills_its_model_after_parts_is_found_when_it_comes_again(
    server: Server,
) -> None:
    server.loads = True
    async with inference_on(server, clock=Leaps(), limit=slots(4)) as inference:
        innocents = [asyncio.create_task(again(inference, n)) for n in range(1, 7)]
        killer = asyncio.create_task(again(inference, DEADLY))
        with pytest.raises(ModelError, match="while this item was alone in its request"):
            await killer
        assert await asyncio.gather(*innocents) == [list(range(n)) for n in range(1, 7)]
        loaded = server.loaded
        # The next attempt of its message costs the model no more than one death.
        with pytest.raises(ModelError, match="while this item was alone in its request"):
            await collect(inference, DEADLY)
        assert server.loaded <= loaded + 1
        assert await collect(inference, 2) == [0, 1]


async def again(inference: Inference, value: float) -> list[float]:
    """As a message that comes again whenever a server was away."""
    while True:
        with contextlib.suppress(Unavailable):
            return await collect(inference, value)


# --- what is given ------------------------------------------------------------------------------


def test_a_part_has_the_outputs_it_has_and_one_row_of_each() -> None:
    assert part_of(COUNT, ModelReply({}, "1")) == {}
    rows = np.zeros((2, 1), np.float32)
    with pytest.raises(ModelError, match="its rows belong to no item"):
        part_of(COUNT, ModelReply({"y": rows}, "1"))
    unbatched = replace(COUNT, max_batch_size=0)
    assert part_of(unbatched, ModelReply({"y": rows}, "1"))["y"] is rows


def test_streams_may_be_more_than_instances_unless_the_limit_is_fixed() -> None:
    limit = AdaptiveLimit()
    limit.instances = 1
    limit.streams()
    for _ in range(300):
        limit.measured(2.0, 1, full=True)
    assert limit.slots == STREAMS
    fixed = AdaptiveLimit(minimum=2, maximum=2, start=2)
    fixed.streams()
    assert fixed.maximum == 2
