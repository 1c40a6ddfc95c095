"""Model calls of a process: who is told and what is counted, outages, versions, the end."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from mqinfer import context as contexts
from mqinfer.context import Context
from mqinfer.errors import (
    BadTensor,
    ModelError,
    NotConnected,
)
from mqinfer.inference.inference import Inference
from mqinfer.metrics import Metrics
from mqinfer.model import Model
from mqinfer.model import inference as current_inference
from mqinfer.ports import ModelInfo, TensorInfo
from tests.support.inference import (
    BAD,
    DETECTOR,
    DOUBLE,
    IMAGE,
    Server,
    ask,
    hold,
    inference_on,
    slots,
    until,
    x,
)


async def test_a_model_handle_records_who_answered(inference: Inference) -> None:
    context = Context(id="1", stage="s", sequence=1)
    contexts.current.set(context)
    current_inference.set(inference)
    await Model("double")(x=x(1))
    assert context.models == {"double": "2"}


async def test_what_does_not_fit_its_model_is_not_sent() -> None:
    server = Server(DETECTOR)
    async with inference_on(server) as inference:
        with pytest.raises(BadTensor, match="the model wants uint8"):
            await inference("leaf_detector", None, {"image": IMAGE.astype(np.float32)})
    assert server.requests == []


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
    with pytest.raises(NotConnected, match=r"inside `async with mqinfer\.connect"):
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
