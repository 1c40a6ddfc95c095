"""Scheduling, splitting, outages and cancellation of model calls, on a server made for it."""

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqinfer import context as contexts
from mqinfer.context import Context
from mqinfer.errors import (
    BadTensor,
    ModelError,
    ModelUnavailable,
    MqinferError,
    NotConnected,
    Unavailable,
)
from mqinfer.inference.calls import ModelDied
from mqinfer.inference.inference import Inference
from mqinfer.inference.limits import AdaptiveLimit
from mqinfer.metrics import Metrics
from mqinfer.model import Answer, Model
from mqinfer.model import inference as current_inference
from mqinfer.ports import ModelInfo, ModelReply, TensorInfo

F32 = np.dtype(np.float32)
TEXT = np.dtype(object)
DOUBLE = ModelInfo(
    "double", ("1", "2"), (TensorInfo("x", F32, (-1,)),), (TensorInfo("y", F32, (-1,)),), 8
)
BAD = -1.0
DEADLY = -2.0


class Server:
    """y = 2 x. An item of BAD is refused, one of DEADLY takes the server down for a moment."""

    def __init__(self, *models: ModelInfo) -> None:
        self.models = {info.name: info for info in models or (DOUBLE,)}
        self.gate = asyncio.Event()
        self.gate.set()
        self.down: str | None = None
        self.gone: set[str] = set()
        self.requests: list[tuple[str, str | None, int]] = []
        self.values: list[list[float]] = []
        self.under_way = self.most_under_way = self.cancelled = self.described = self.probes = 0
        self.spoil: Callable[[dict[str, Any]], dict[str, Any]] = lambda outputs: outputs
        self.fault: Exception | None = None
        self.mortal = self.dead = False

    def _require(self, model: str, version: str | None) -> ModelInfo:
        if self.down is not None:
            raise Unavailable(self.down)
        info = self.models.get(model)
        if info is None or model in self.gone or version not in {None, *info.versions}:
            raise ModelUnavailable(f"{model} {version} is not there")
        return info

    async def describe(self, model: str, version: str | None = None) -> ModelInfo:
        self.described += 1
        await asyncio.sleep(0)
        return self._require(model, version)

    async def ready(self) -> None:
        self.probes += 1
        await asyncio.sleep(0)
        if self.down is not None:
            raise Unavailable(self.down)

    async def infer(
        self, model: str, version: str | None, inputs: Mapping[str, Any], *, timeout: float
    ) -> ModelReply:
        info = self._require(model, version)
        array = inputs[info.inputs[0].name]
        self.requests.append((model, version, len(array)))
        self.values.append(array.ravel().tolist())
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1
        info = self._require(model, version)
        if self.fault is not None:
            raise self.fault
        if array.dtype == F32 and (array == DEADLY).any():
            self.dead = self.mortal
            if not self.mortal:
                raise Unavailable("connection reset")
        if self.dead:
            raise ModelDied("its process is not healthy")
        if array.dtype == F32 and (array == BAD).any():
            raise ModelError("no item of this request may be negative")
        wanted = info.inputs[0]
        if array.dtype != wanted.dtype:
            raise ModelError(f"expected {wanted.dtype}")
        outputs = {info.outputs[0].name: array * 2 if array.dtype != TEXT else array}
        return ModelReply(self.spoil(outputs), version or info.versions[-1])

    async def close(self) -> None:
        pass


class Leaps:
    """A clock on which each look is a second later, to be quicker than the real one."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def slots(count: int) -> Callable[[], AdaptiveLimit]:
    return lambda: AdaptiveLimit(minimum=count, maximum=count, start=count)


def x(*values: float) -> np.ndarray[Any, Any]:
    return np.array(values, np.float32)


async def until(condition: Callable[[], object]) -> None:
    """Wait for a state; the bound is only for a test that fails."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - conditions are of all kinds
            await asyncio.sleep(0)


def ask(inference: Inference, *values: float, model: str = "double") -> list[asyncio.Task[Answer]]:
    return [
        asyncio.get_running_loop().create_task(inference(model, None, {"x": x(value)}))
        for value in values
    ]


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def inference(server: Server) -> AsyncIterator[Inference]:
    """With one slot, so that what gathers is known."""
    async with inference_on(server) as inference:
        yield inference


@contextlib.asynccontextmanager
async def inference_on(server: Server, **options: Any) -> AsyncIterator[Inference]:
    async with Inference(server, **{"limit": slots(1), **options}) as inference:
        yield inference
        statistics = inference.statistics()
    # Nothing may be left behind, whatever happened.
    assert inference.statistics().tasks == 0
    for queue in statistics.queues:
        assert (queue.calls, queue.waiting_for_room) == (0, 0)
        assert queue.batcher.waiting == 0


async def hold(server: Server, inference: Inference, value: float = 0.0) -> asyncio.Task[Answer]:
    """Occupy the only slot with a request that does not end until the gate opens."""
    server.gate.clear()
    [first] = ask(inference, value)
    await until(lambda: server.under_way == 1)
    return first


# --- answers ------------------------------------------------------------------------------------


async def test_a_lone_call_goes_out_at_once(server: Server, inference: Inference) -> None:
    answer = await inference("double", None, {"x": x(1, 2)})
    assert answer["y"].tolist() == [2, 4]
    assert (answer.model, answer.version) == ("double", "2")
    assert server.requests == [("double", None, 1)]


async def test_a_pinned_version_answers(server: Server, inference: Inference) -> None:
    assert (await inference("double", "1", {"x": x(1)})).version == "1"
    assert server.requests == [("double", "1", 1)]


async def test_a_model_handle_records_who_answered(inference: Inference) -> None:
    context = Context(id="1", stage="s", sequence=1)
    contexts.current.set(context)
    current_inference.set(inference)
    await Model("double")(x=x(1))
    assert context.models == {"double": "2"}


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


# --- what is counted ----------------------------------------------------------------------------


def counted(metrics: Metrics, name: str, version: str = "2") -> float:
    """What Prometheus reads of the model; 0 where there is nothing to read."""
    text = metrics.render().decode()
    labels = f'{{app="plants",model="double",version="{version}"}}'
    found = [line for line in text.splitlines() if line.startswith(f"mqinfer_model_{name}{labels}")]
    return float(found[0].split()[-1]) if found else 0.0


async def test_requests_that_are_answered_are_counted(server: Server) -> None:
    metrics = Metrics("plants")
    async with inference_on(server, observer=metrics) as inference:
        await asyncio.gather(*ask(inference, 1, 2, 3))
    assert counted(metrics, "requests_total") == 1
    assert counted(metrics, "items_total") == 3
    assert counted(metrics, "request_seconds_count") == 1
    assert counted(metrics, "failures_total") == 0


async def test_requests_that_are_refused_are_counted_as_failures(server: Server) -> None:
    metrics = Metrics("plants")
    async with inference_on(server, observer=metrics) as inference:
        await inference("double", None, {"x": x(0)})
        answers = await asyncio.gather(*ask(inference, 1, 2, BAD, 4), return_exceptions=True)
        assert [isinstance(answer, ModelError) for answer in answers] == [0, 0, 1, 0]
        # The four together, and the bad one alone.
        assert counted(metrics, "failures_total") == 2
        assert counted(metrics, "requests_total") == 4
        server.fault = ValueError("odd")
        with pytest.raises(ModelError):
            await inference("double", "1", {"x": x(1)})
    assert counted(metrics, "failures_total", version="1") == 1


async def test_requests_that_are_lost_are_counted_as_failures(server: Server) -> None:
    metrics = Metrics("plants")
    async with inference_on(server, observer=metrics) as inference:
        first = await hold(server, inference, 1)
        server.down = "connection refused"
        server.gate.set()
        await until(lambda: counted(metrics, "failures_total") == 1)
        assert not first.done()
        server.down = None
        assert (await first)["y"].tolist() == [2]
    assert counted(metrics, "failures_total") == 1
    assert counted(metrics, "requests_total") == 1


async def test_a_reply_that_is_no_answer_is_counted_as_a_failure(server: Server) -> None:
    metrics = Metrics("plants")
    server.spoil = lambda outputs: {}
    async with inference_on(server, observer=metrics) as inference:
        with pytest.raises(ModelError, match="lacks the output"):
            await inference("double", None, {"x": x(1)})
    assert counted(metrics, "failures_total") == 1


# --- inputs that do not fit ---------------------------------------------------------------------

DETECTOR = ModelInfo(
    "leaf_detector",
    ("1",),
    (
        TensorInfo("image", np.dtype(np.uint8), (480, 640, 3)),
        TensorInfo("note", TEXT, (1,), optional=True),
    ),
    (TensorInfo("boxes", np.dtype(np.uint8), (480, 640, 3)),),
    4,
)
IMAGE = np.zeros((480, 640, 3), np.uint8)


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        (
            {"image": IMAGE.astype(np.float32)},
            "model leaf_detector: input 'image' is float32 (480, 640, 3), "
            "the model wants uint8 (480, 640, 3)",
        ),
        (
            {"image": IMAGE[:2]},
            "model leaf_detector: input 'image' is uint8 (2, 640, 3), "
            "the model wants uint8 (480, 640, 3)",
        ),
        (
            {"image": IMAGE[np.newaxis]},
            "model leaf_detector: input 'image' is uint8 (1, 480, 640, 3), "
            "the model wants uint8 (480, 640, 3)",
        ),
        (
            {"picture": IMAGE},
            "model leaf_detector: input 'image' is missing; the model's inputs are "
            "'image' uint8 (480, 640, 3), 'note' strings (1,) (optional)",
        ),
        (
            {"image": IMAGE, "boxes": IMAGE},
            "model leaf_detector: no input is called 'boxes'; the model's inputs are "
            "'image' uint8 (480, 640, 3), 'note' strings (1,) (optional)",
        ),
        (
            {"image": [[1, 2], [3, 4]]},
            "model leaf_detector: input 'image' is a list; pass a NumPy array, uint8 (480, 640, 3)",
        ),
        (
            {"image": None},
            "model leaf_detector: input 'image' is a NoneType; "
            "pass a NumPy array, uint8 (480, 640, 3)",
        ),
        (
            {"image": IMAGE, "note": np.array([7], object)},
            "model leaf_detector: input 'note' holds a int; its elements must be str or bytes",
        ),
        (
            {"image": IMAGE, "note": np.array(["a", "b"])},
            "model leaf_detector: input 'note' is str64 (2,), the model wants strings (1,)",
        ),
    ],
)
async def test_what_does_not_fit_is_refused_with_both_sides_named(
    inputs: dict[str, Any], text: str
) -> None:
    server = Server(DETECTOR)
    async with inference_on(server) as inference:
        with pytest.raises(BadTensor) as caught:
            await inference("leaf_detector", None, inputs)
    assert str(caught.value) == text.replace("str64", np.dtype("<U1").name)
    assert server.requests == []


async def test_optional_inputs_may_be_left_out_and_do_not_mix() -> None:
    server = Server(DETECTOR)
    async with inference_on(server) as inference:
        await asyncio.gather(
            inference("leaf_detector", None, {"image": IMAGE}),
            inference("leaf_detector", None, {"image": IMAGE, "note": np.array(["a"])}),
            inference("leaf_detector", None, {"image": IMAGE, "note": np.array([b"b"], object)}),
        )
    assert [count for _, _, count in server.requests] == [1, 2]


async def test_shapes_with_free_sides_are_said_so(inference: Inference) -> None:
    with pytest.raises(BadTensor, match=r"is float32 \(1, 1\), the model wants float32 \(any,\)"):
        await inference("double", None, {"x": x(1)[np.newaxis]})


async def test_foreign_byte_order_is_refused(inference: Inference) -> None:
    with pytest.raises(BadTensor, match="foreign byte order"):
        await inference("double", None, {"x": np.zeros(1, ">f4")})


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


# --- outages ------------------------------------------------------------------------------------


async def test_an_outage_of_the_server_is_waited_out(server: Server) -> None:
    now = 100.0
    async with inference_on(server, clock=lambda: now) as inference:
        context = Context(id="1", stage="s", sequence=1)
        token = contexts.current.set(context)
        server.gate.clear()
        tasks = ask(inference, 1, 2)
        await until(lambda: server.under_way == 1)
        assert context.waiting_since is None

        server.down = "connection refused"
        server.gate.set()
        await until(lambda: context.waiting_since is not None)
        now = 130.0
        late = ask(inference, 3)
        await until(lambda: server.probes >= 2)
        assert inference.blocked([Model("double")]) == (
            "triton is not available for 30 s: connection refused"
        )
        assert inference.blocked([Model("another")]) is not None
        assert inference.blocked([]) is None

        now = 160.0
        server.down = None
        answers = await asyncio.gather(*tasks, *late)
        contexts.current.reset(token)
    assert [answer["y"].tolist() for answer in answers] == [[2], [4], [6]]
    assert context.waiting_since is None
    assert context.waited == 60.0
    assert inference.blocked([Model("double")]) is None


async def test_calls_made_while_the_server_is_not_there_yet_wait(server: Server) -> None:
    server.down = "connection refused"
    async with inference_on(server) as inference:
        tasks = ask(inference, 1, 2)
        await until(lambda: inference.blocked([Model("double")]))
        server.down = None
        await asyncio.gather(*tasks)
    assert server.values == [[1, 2]]


async def test_a_model_that_is_gone_stops_only_itself() -> None:
    server = Server(DOUBLE, replace(DOUBLE, name="other"))
    async with inference_on(server) as inference:
        await inference("double", None, {"x": x(1)})
        server.gone.add("double")
        context = Context(id="1", stage="s", sequence=1)
        token = contexts.current.set(context)
        [waiting] = ask(inference, 2)
        contexts.current.reset(token)
        await until(lambda: inference.blocked([Model("double")]))
        assert context.waiting_since is not None
        text = inference.blocked([Model("other"), Model("double")])
        assert text is not None
        assert text.startswith("model double is not available")
        assert inference.blocked([Model("other")]) is None
        assert (await inference("other", None, {"x": x(3)}))["y"].tolist() == [6]
        assert not waiting.done()
        server.gone.clear()
        assert (await waiting)["y"].tolist() == [4]
        assert context.waiting_since is None


async def test_a_stage_learns_that_its_model_is_absent_before_its_first_message(
    server: Server, inference: Inference
) -> None:
    assert inference.blocked([Model("absent")]) is None
    await until(lambda: inference.blocked([Model("absent")]))
    server.models["absent"] = replace(DOUBLE, name="absent")
    await until(lambda: inference.blocked([Model("absent")]) is None)


async def test_a_cancelled_call_in_an_outage_is_forgotten(
    server: Server, inference: Inference
) -> None:
    await inference("double", None, {"x": x(0)})
    server.down = "gone"
    context = Context(id="1", stage="s", sequence=1)
    token = contexts.current.set(context)
    tasks = ask(inference, 1, 2)
    contexts.current.reset(token)
    await until(lambda: context.waiting_since is not None)
    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    assert context.waiting_since is not None
    server.down = None
    await tasks[1]
    assert context.waiting_since is None
    assert server.values == [[0], [2]]


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


async def test_a_new_version_is_noticed_while_running(server: Server) -> None:
    inference = Inference(server, limit=slots(1), refresh=0.01)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(inference.run())
        assert (await inference("double", None, {"x": x(1)})).version == "2"
        wide = np.dtype(np.float64)
        server.models["double"] = replace(
            DOUBLE, versions=("2", "3"), inputs=(TensorInfo("x", wide, (-1,)),)
        )
        seen = server.described
        await until(lambda: server.described >= seen + 2)
        assert (await inference("double", None, {"x": np.zeros(1)})).version == "3"
        with pytest.raises(BadTensor, match="is float32"):
            await inference("double", None, {"x": x(1)})
        server.gone.add("double")
        await until(lambda: inference.blocked([Model("double")]))
        running.cancel()
    assert inference.statistics().tasks == 0


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


# --- the end ------------------------------------------------------------------------------------


async def test_closing_answers_everybody_and_leaves_no_task(server: Server) -> None:
    inference = Inference(server, limit=slots(1))
    under_way = await hold(server, inference)
    waiting = ask(inference, 1, 2)
    server.gone.add("absent")
    unknown = ask(inference, 3, model="absent")
    await until(lambda: inference.blocked([Model("absent")]))
    await inference.close()
    results = await asyncio.gather(under_way, *waiting, *unknown, return_exceptions=True)
    assert all(isinstance(result, NotConnected) for result in results)
    assert inference.statistics().tasks == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}
    with pytest.raises(NotConnected, match=r"inside `async with app\.connect"):
        await inference("double", None, {"x": x(1)})


async def test_run_ends_when_cancelled(server: Server) -> None:
    inference = Inference(server)
    running = asyncio.create_task(inference.run())
    server.gate.clear()
    tasks = ask(inference, 1)
    await until(lambda: server.under_way == 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.gather(*tasks, return_exceptions=True)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_side_task_that_dies_stops_run_and_answers_callers(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(model: str, version: str | None = None) -> ModelInfo:
        raise ZeroDivisionError("a fault in the adapter")

    monkeypatch.setattr(server, "describe", broken)
    inference = Inference(server)
    running = asyncio.create_task(inference.run())
    [call] = ask(inference, 1)
    with pytest.raises(ZeroDivisionError):
        await running
    with pytest.raises(NotConnected, match="ZeroDivisionError"):
        await call


async def test_repr_and_statistics_show_the_state(server: Server, inference: Inference) -> None:
    first = await hold(server, inference)
    assert "model double up" in repr(inference)
    assert "busy=1" in repr(inference)
    [queue] = inference.statistics().queues
    assert (queue.model, queue.version, queue.blocked, queue.calls) == ("double", None, None, 1)
    server.gate.set()
    await first
    [queue] = inference.statistics().queues
    assert (queue.requests, queue.items, queue.refused, queue.resent) == (1, 1, 0, 0)


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
            async with asyncio.timeout(20):
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
