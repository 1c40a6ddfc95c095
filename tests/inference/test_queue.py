"""What a queue of calls does: gathering, bad items, cancellation, items that bring a model down."""

import asyncio
import contextlib
import gc
import itertools
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqinfer.context import Context, current
from mqinfer.errors import (
    BadTensor,
    ModelError,
    ModelTimeout,
    MqinferError,
)
from mqinfer.identity import ROOTS
from mqinfer.inference.inference import Inference
from mqinfer.inference.limits import AdaptiveLimit
from mqinfer.model import Answer, Model
from mqinfer.model import inference as current_inference
from mqinfer.ports import TensorInfo
from tests.support.inference import (
    BAD,
    DEADLY,
    DETECTOR,
    DOUBLE,
    F32,
    IMAGE,
    Leaps,
    Server,
    ask,
    hold,
    inference_on,
    slots,
    until,
    x,
)

# --- answers ------------------------------------------------------------------------------------


async def test_a_lone_call_goes_out_at_once(server: Server, inference: Inference) -> None:
    answer = await inference("double", None, {"x": x(1, 2)})
    assert answer["y"].tolist() == [2, 4]
    assert (answer.model, answer.version) == ("double", "2")
    assert server.requests == [("double", None, 1)]


async def test_a_pinned_version_answers(server: Server, inference: Inference) -> None:
    assert (await inference("double", "1", {"x": x(1)})).version == "1"
    assert server.requests == [("double", "1", 1)]


async def test_calls_gather_while_the_slot_is_busy(server: Server, inference: Inference) -> None:
    first = await hold(server, inference)
    others = ask(inference, 1, 2, 3, 4, 5)
    await until(lambda: inference.statistics().queues[0].batcher.waiting == 5)
    server.gate.set()
    answers = await asyncio.gather(first, *others)
    assert [answer["y"].tolist() for answer in answers] == [[0], [2], [4], [6], [8], [10]]
    assert server.values == [[0], [1, 2, 3, 4, 5]]


async def test_calls_of_one_turn_go_together(server: Server, inference: Inference) -> None:
    await inference("double", None, {"x": x(0)})
    await asyncio.gather(*ask(inference, 1, 2, 3))
    assert server.values == [[0], [1, 2, 3]]


async def test_a_request_holds_no_more_than_the_model_takes(
    server: Server, inference: Inference
) -> None:
    first = await hold(server, inference)
    others = ask(inference, *range(1, 20))
    await until(lambda: inference.statistics().queues[0].batcher.waiting == 19)
    server.gate.set()
    await asyncio.gather(first, *others)
    assert [count for _, _, count in server.requests] == [1, 8, 8, 3]


async def test_a_request_holds_no_more_than_the_bytes(server: Server) -> None:
    async with inference_on(server, request_bytes=3 * 4) as inference:
        first = await hold(server, inference)
        others = ask(inference, *range(1, 8))
        await until(lambda: inference.statistics().queues[0].batcher.waiting == 7)
        server.gate.set()
        await asyncio.gather(first, *others)
    assert [count for _, _, count in server.requests] == [1, 3, 3, 1]


async def test_no_more_requests_than_slots(server: Server) -> None:
    server.gate.clear()
    async with inference_on(server, limit=slots(3)) as inference:
        tasks = ask(inference, *range(100))
        await until(lambda: server.under_way == 3)
        server.gate.set()
        await asyncio.gather(*tasks)
    assert server.most_under_way == 3


async def test_different_shapes_never_share_a_request_and_the_oldest_goes_first(
    server: Server, inference: Inference
) -> None:
    first = await hold(server, inference)
    wide = [asyncio.create_task(inference("double", None, {"x": x(i, i)})) for i in (1, 2)]
    narrow = ask(inference, 3, 4)
    await until(lambda: inference.statistics().queues[0].batcher.waiting == 4)
    server.gate.set()
    await asyncio.gather(first, *wide, *narrow)
    assert server.values == [[0], [1, 1, 2, 2], [3, 4]]


async def test_optional_inputs_may_be_left_out_and_do_not_mix() -> None:
    server = Server(DETECTOR)
    async with inference_on(server) as inference:
        await asyncio.gather(
            inference("leaf_detector", None, {"image": IMAGE}),
            inference("leaf_detector", None, {"image": IMAGE, "note": np.array(["a"])}),
            inference("leaf_detector", None, {"image": IMAGE, "note": np.array([b"b"], object)}),
        )
    assert [count for _, _, count in server.requests] == [1, 2]


async def test_a_model_without_batch_dimension_gets_one_call_a_request() -> None:
    server = Server(replace(DOUBLE, max_batch_size=0))
    async with inference_on(server, limit=slots(2)) as inference:
        tasks = [asyncio.create_task(inference("double", None, {"x": x(i, i)})) for i in range(5)]
        answers = await asyncio.gather(*tasks)
    assert [answer["y"].tolist() for answer in answers] == [[2 * i, 2 * i] for i in range(5)]
    assert server.values == [[i, i] for i in range(5)]


async def test_arrays_are_freed_without_the_garbage_collector(inference: Inference) -> None:
    array = x(1)
    seen = weakref.ref(array)
    gc.disable()
    try:
        await inference("double", None, {"x": array})
        del array
        await until(lambda: seen() is None)
    finally:
        gc.enable()


# --- bad items ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [(0,), (7,), (3, 4), (0, 2, 5), tuple(range(8))])
async def test_bad_items_do_not_fail_their_neighbours(
    server: Server, inference: Inference, bad: tuple[int, ...]
) -> None:
    values = [BAD if index in bad else float(index) for index in range(8)]
    results = await asyncio.gather(*ask(inference, *values), return_exceptions=True)
    for index, result in enumerate(results):
        if index in bad:
            assert isinstance(result, ModelError)
        else:
            assert isinstance(result, Answer)
            assert result["y"].tolist() == [2 * index]
    assert len(server.requests) <= 2 * 8
    assert inference.statistics().queues[0].refused == len(bad)


async def test_a_fault_of_the_adapter_is_an_error_of_its_call(
    server: Server, inference: Inference
) -> None:
    server.fault = TypeError("what is this?")
    with pytest.raises(ModelError, match="failed inside mqinfer: TypeError"):
        await inference("double", None, {"x": x(1)})
    server.fault = None
    assert (await inference("double", None, {"x": x(1)}))["y"].tolist() == [2]


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda outputs: {}, "the reply lacks the output 'y'; it has none"),
        (lambda outputs: {"y": outputs["y"][:-1]}, "so its rows belong to no item"),
        (lambda outputs: {"y": outputs["y"].sum()}, "so its rows belong to no item"),
    ],
)
async def test_a_reply_that_makes_no_sense_is_an_error(
    server: Server, inference: Inference, spoil: Callable[[dict[str, Any]], Any], text: str
) -> None:
    server.spoil = spoil
    results = await asyncio.gather(*ask(inference, 1, 2, 3), return_exceptions=True)
    assert all(isinstance(result, ModelError) and text in str(result) for result in results)


async def test_a_scalar_output_stays_an_array() -> None:
    server = Server(replace(DOUBLE, outputs=(TensorInfo("y", F32, ()),)))
    server.spoil = lambda outputs: {"y": outputs["y"].sum(axis=1)}
    async with inference_on(server) as inference:
        answer = await inference("double", None, {"x": x(1, 2)})
    assert isinstance(answer["y"], np.ndarray)
    assert answer["y"].shape == ()


# --- cancellation -------------------------------------------------------------------------------


async def test_a_cancelled_call_that_waits_is_not_sent(
    server: Server, inference: Inference
) -> None:
    first = await hold(server, inference)
    others = ask(inference, 1, 2, 3)
    await until(lambda: inference.statistics().queues[0].batcher.waiting == 3)
    others[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await others[1]
    server.gate.set()
    await asyncio.gather(first, others[0], others[2])
    assert server.values == [[0], [1, 3]]


async def test_a_cancelled_call_under_way_leaves_its_neighbours(
    server: Server, inference: Inference
) -> None:
    server.gate.clear()
    tasks = ask(inference, 1, 2, 3)
    await until(lambda: server.under_way == 1)
    tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    server.gate.set()
    assert [answer["y"].tolist() for answer in await asyncio.gather(*tasks[1:])] == [[4], [6]]
    assert server.cancelled == 0


async def test_a_request_that_nobody_waits_for_is_cancelled(
    server: Server, inference: Inference
) -> None:
    server.gate.clear()
    tasks = ask(inference, 1, 2)
    await until(lambda: server.under_way == 1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await until(lambda: server.cancelled == 1)
    server.gate.set()
    # Its slot is free again.
    assert (await inference("double", None, {"x": x(5)}))["y"].tolist() == [10]


async def test_a_request_cancelled_before_it_began_frees_its_slot(
    server: Server, inference: Inference
) -> None:
    await inference("double", None, {"x": x(0)})
    for turns in range(6):
        [task] = ask(inference, 1)
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await until(lambda: inference.statistics().queues[0].batcher.busy == 0)
    assert (await inference("double", None, {"x": x(5)}))["y"].tolist() == [10]
    await until(lambda: inference.statistics().queues[0].batcher.sent == 0)


# --- whose time it is ---------------------------------------------------------------------------


def asking(inference: Inference, *values: float) -> tuple[Context, list[asyncio.Task[Answer]]]:
    """Calls of a message of its own."""
    context = Context(id="1", stage="s", sequence=1)
    token = current.set(context)
    try:
        return context, ask(inference, *values)
    finally:
        current.reset(token)


async def test_a_call_behind_those_of_others_is_not_its_handlers_time(server: Server) -> None:
    now = 0.0
    async with inference_on(server, clock=lambda: now) as inference:
        await inference("double", None, {"x": x(0)})
        server.gate.clear()
        first, one = asking(inference, 1)
        await until(lambda: server.under_way == 1)
        second, two = asking(inference, 2)
        await until(lambda: inference.statistics().queues[0].batcher.waiting == 1)
        now = 100.0
        assert (first.waited_by(now), second.waited_by(now)) == (0.0, 100.0)
        server.gate.set()
        await asyncio.gather(*one, *two)
    assert (first.waiting_since, first.waited) == (None, 0.0)
    assert (second.waiting_since, second.waited) == (None, 100.0)


async def test_calls_behind_those_of_the_same_message_are_its_time(server: Server) -> None:
    now = 0.0
    async with inference_on(server, clock=lambda: now) as inference:
        await inference("double", None, {"x": x(0)})
        server.gate.clear()
        context, calls = asking(inference, 1)
        await until(lambda: server.under_way == 1)
        token = current.set(context)
        calls += ask(inference, 2)
        current.reset(token)
        await until(lambda: inference.statistics().queues[0].batcher.waiting == 1)
        now = 100.0
        assert context.waited_by(now) == 0.0, "or nothing would bound a model that hangs"
        server.gate.set()
        await asyncio.gather(*calls)
    assert (context.waiting_since, context.waited) == (None, 0.0)


async def test_a_request_given_up_leaves_the_slot_at_rest(server: Server) -> None:
    now, limit = 0.0, AdaptiveLimit(maximum=2, start=1)
    async with inference_on(server, clock=lambda: now, limit=lambda: limit) as inference:
        server.gate.clear()
        [call] = ask(inference, 1)
        await until(lambda: server.under_way == 1)
        now = 1.0
        call.cancel()
        await asyncio.wait([call])
        await until(lambda: server.under_way == 0)
        assert limit.capacity == 0.5
        server.gate.set()
        context, [call] = asking(inference, 5)
        await until(lambda: inference.statistics().queues[0].batcher.waiting == 1)
        await asyncio.sleep(0)
        assert (len(server.requests), context.waiting_since) == (1, 1.0), "it rests a second"
        now = 10.0
        assert (await call)["y"].tolist() == [10]


async def test_outside_of_a_handler_a_call_ends_by_itself(server: Server) -> None:
    async with inference_on(server, timeout=60) as inference:
        first = await hold(server, inference)
        with pytest.raises(
            ModelTimeout, match=r"no answer within 0\.01 s \(.*timeout= to app\.mod"
        ):
            await inference("double", None, {"x": x(1)}, timeout=0.01)
        server.gate.set()
        await first
        server.down = "connection refused"
        with pytest.raises(ModelTimeout, match="connection refused"):
            await inference("double", None, {"x": x(1)}, timeout=0.01)
        server.down = None


# --- room ---------------------------------------------------------------------------------------


async def test_callers_wait_when_there_is_no_room(server: Server) -> None:
    async with inference_on(server, max_calls=3) as inference:
        first = await hold(server, inference)
        others = ask(inference, 1, 2, 3, 4, 5)
        await until(lambda: inference.statistics().queues[0].waiting_for_room == 3)
        assert inference.statistics().queues[0].batcher.waiting == 2
        others[2].cancel()
        await until(lambda: inference.statistics().queues[0].waiting_for_room == 2)
        server.gate.set()
        await asyncio.gather(first, *others, return_exceptions=True)
    assert server.values == [[0], [1, 2, 4], [5]]


# --- lost requests -----------------------------------------------------------------------------


async def another_request(server: Server) -> None:
    count = len(server.requests)
    await until(lambda: len(server.requests) > count)


async def restart_when_dead(server: Server, inference: Inference) -> None:
    """What an operator does, or a liveness probe."""
    while True:
        await until(lambda: server.dead)
        # The model is called ready all the time: calls wait nevertheless.
        await another_request(server)
        server.down = "restarting"
        await until(lambda: inference.statistics().blocked)
        server.dead, server.down = False, None


@pytest.mark.parametrize("mortal", [False, True])
async def test_an_item_that_takes_the_server_down_is_found(server: Server, mortal: bool) -> None:
    server.mortal = mortal
    async with inference_on(server, clock=Leaps()) as inference:
        values = [1.0, 2.0, 3.0, DEADLY, 5.0, 6.0, 7.0, 8.0]
        restarting = asyncio.create_task(restart_when_dead(server, inference))
        results = await asyncio.gather(*ask(inference, *values), return_exceptions=True)
        restarting.cancel()
        assert [isinstance(result, Answer) for result in results] == [v > 0 for v in values]
        with pytest.raises(ModelError, match="times no answer came while this item was alone"):
            raise results[3]  # type: ignore[misc]


async def test_a_model_that_dies_is_loaded_anew_and_only_its_killer_fails(server: Server) -> None:
    server.mortal = server.loads = True
    async with inference_on(server, clock=Leaps()) as inference:
        context, calls = asking(inference, 1, 2, 3, DEADLY, 5, 6, 7, 8)
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(result, Answer) for result in results] == [True] * 3 + [False] + [True] * 4
    assert isinstance(results[3], ModelError)
    assert server.loaded >= 3
    assert context.waited > 0, "the wait for it is not the handler's time"


# --- live before bulk ---------------------------------------------------------------------------


def asking_bulk(inference: Inference, *values: float) -> list[asyncio.Task[Answer]]:
    return [
        asyncio.create_task(inference("double", None, {"x": x(value)}, bulk=True))
        for value in values
    ]


async def test_live_calls_go_before_bulk_ones_in_requests_of_their_own(
    server: Server, inference: Inference
) -> None:
    first = await hold(server, inference)
    bulk = asking_bulk(inference, *range(100, 124))
    await until(lambda: inference.statistics().queues[0].batcher.waiting == 24)
    live = ask(inference, 1, 2)
    await until(lambda: inference.statistics().queues[0].batcher.waiting == 26)
    server.gate.set()
    await asyncio.gather(first, *bulk, *live)
    assert server.values[1] == [1, 2]
    assert [len(values) for values in server.values[2:]] == [8, 8, 8]


async def test_bulk_calls_are_not_starved(server: Server, inference: Inference) -> None:
    first = await hold(server, inference)
    bulk = asking_bulk(inference, *range(100, 124))
    live = ask(inference, *range(1, 65))
    await until(lambda: inference.statistics().queues[0].batcher.waiting == 88)
    server.gate.set()
    await asyncio.gather(first, *bulk, *live)
    kinds = ["bulk" if values[0] >= 100 else "live" for values in server.values[1:]]
    assert kinds.count("live") == 8
    assert [index for index, kind in enumerate(kinds) if kind == "bulk"][:2] == [2, 6]


async def test_bulk_calls_leave_room_for_live_ones(server: Server) -> None:
    async with inference_on(server, max_calls=8) as inference:
        first = await hold(server, inference)
        bulk = asking_bulk(inference, *range(100, 120))
        await until(lambda: inference.statistics().queues[0].waiting_for_room == 17)
        live = ask(inference, 1)
        await until(lambda: inference.statistics().queues[0].batcher.waiting == 4)
        assert inference.statistics().queues[0].waiting_for_room == 17
        server.gate.set()
        await asyncio.gather(first, *bulk, *live)
    assert server.values[1] == [1]
    assert sorted(itertools.chain(*server.values[2:])) == list(range(100, 120))


async def test_calls_of_a_replay_of_a_job_and_of_a_bulk_handle_are_bulk(
    server: Server, inference: Inference
) -> None:
    first = await hold(server, inference)
    token = current.set(Context(id="1", stage="s", sequence=1, run="again"))
    replayed = ask(inference, 101)
    current.reset(token)
    headers = {ROOTS: f"job..grade/{'0' * 32}"}
    token = current.set(Context(id="1", stage="s", sequence=1, headers=headers))
    of_job = ask(inference, 103)
    current.reset(token)
    current_inference.set(inference)
    handle = asyncio.create_task(Model("double", priority="bulk")(x=x(102)))
    await until(lambda: inference.statistics().queues[0].batcher.waiting == 3)
    live = ask(inference, 1)
    await until(lambda: inference.statistics().queues[0].batcher.waiting == 4)
    server.gate.set()
    await asyncio.gather(first, handle, *replayed, *of_job, *live)
    assert server.values[:2] == [[0], [1]]
    assert sorted(server.values[2]) == [101, 102, 103]


# --- newer versions ----------------------------------------------------------------------------


async def test_calls_for_an_older_version_are_checked_again(
    server: Server, inference: Inference
) -> None:
    first = await hold(server, inference)
    wide = np.dtype(np.float64)
    server.models["double"] = replace(
        DOUBLE, versions=("3",), inputs=(TensorInfo("x", wide, (-1,)),)
    )
    server.gate.set()
    with pytest.raises(BadTensor, match=r"is float32 .* wants float64"):
        await first


async def test_without_run_a_call_that_does_not_fit_looks_for_a_newer_version(
    server: Server,
) -> None:
    async with inference_on(server, refresh=0.0) as inference:
        await inference("double", None, {"x": x(1)})
        server.models["double"] = replace(
            DOUBLE, versions=("3",), inputs=(TensorInfo("x", np.dtype(np.float64), (-1,)),)
        )
        assert (await inference("double", None, {"x": np.zeros(1)})).version == "3"


# --- everything at once -------------------------------------------------------------------------

EVENT = st.one_of(
    st.tuples(st.just("call"), st.sampled_from([1.0, 2.0, 3.0, BAD])),
    st.tuples(st.just("cancel"), st.floats(0, 1)),
    st.tuples(
        st.sampled_from(["turn", "hold", "release", "down", "up", "gone", "there"]), st.just(0.0)
    ),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(EVENT, max_size=60), st.integers(1, 3), st.integers(2, 20))
def test_every_call_gets_exactly_its_own_answer(
    events: list[tuple[str, float]], slot_count: int, max_calls: int
) -> None:
    async def scenario() -> None:
        server = Server()
        calls: list[tuple[float, asyncio.Task[Answer]]] = []
        cancelled: set[int] = set()
        async with inference_on(server, limit=slots(slot_count), max_calls=max_calls) as inference:
            for event, value in events:
                match event:
                    case "call":
                        calls.append((value, ask(inference, value)[0]))
                    case "cancel" if calls:
                        index = min(int(value * len(calls)), len(calls) - 1)
                        calls[index][1].cancel()
                        cancelled.add(index)
                    case "hold":
                        server.gate.clear()
                    case "release":
                        server.gate.set()
                    case "down":
                        server.down = "down"
                    case "up":
                        server.down = None
                    case "gone":
                        server.gone.add("double")
                    case "there":
                        server.gone.clear()
                await asyncio.sleep(0)
            server.down = None
            server.gone.clear()
            server.gate.set()
            async with asyncio.timeout(120):
                results = await asyncio.gather(*(task for _, task in calls), return_exceptions=True)
            for index, ((value, _), result) in enumerate(zip(calls, results, strict=True)):
                if isinstance(result, Answer):
                    assert result["y"].tolist() == [2 * value]
                elif isinstance(result, MqinferError):
                    assert value == BAD
                else:
                    assert index in cancelled
            await until(
                lambda: all(not queue.batcher.busy for queue in inference.statistics().queues)
            )
            assert all(not queue.batcher.sent for queue in inference.statistics().queues)
        assert server.under_way == 0
        assert server.most_under_way <= slot_count
        assert all(count <= 8 for _, _, count in server.requests)

    asyncio.run(scenario())
