"""The Triton adapter, and inference through it, against a real tritonserver."""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from onnx import TensorProto

from mqinfer import App, Message, Worker
from mqinfer.adapters.triton import TritonClient, open_triton
from mqinfer.context import Context, current
from mqinfer.errors import (
    BadTensor,
    ConfigurationError,
    ModelError,
    ModelUnavailable,
    Unavailable,
)
from mqinfer.inference.inference import Inference
from mqinfer.inference.limits import AdaptiveLimit
from mqinfer.model import Answer, Model
from mqinfer.operate import check
from mqinfer.stack.triton import TritonServer
from mqinfer.testing import Harness, nats_only, until
from tests.support.models import config, save_echo, save_table, tensor

# What also holds for our own server is run with it in tests/inferenceserver.
pytestmark = pytest.mark.triton

FRAGILE = """
import os
import sys

# The stub does not look at PYTHONPATH by itself; with another NumPy it answers nothing.
sys.path[:0] = os.environ["PYTHONPATH"].split(":")
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        tensor = pb_utils.get_input_tensor_by_name(request, "in")
        numbers = tensor.as_numpy()
        if (numbers == 66).any():
            os._exit(1)
        if (numbers == 55).any():
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("record not found"))
        return pb_utils.InferenceResponse([pb_utils.Tensor("out", numbers)])
"""


# Waits for a file that is named like its number, and notes each number that it begins with.
SLOW = """
import os
import sys
import time

sys.path[:0] = os.environ["PYTHONPATH"].split(":")
import triton_python_backend_utils as pb_utils

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "slow")

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        numbers = pb_utils.get_input_tensor_by_name(request, "in").as_numpy()
        with open(os.path.join(HERE, "begun"), "a") as begun:
            begun.write("".join(f"{number}\\n" for number in numbers.ravel()))
        while not os.path.exists(os.path.join(HERE, "go")):
            time.sleep(0.01)
        time.sleep(float(open(os.path.join(HERE, "go")).read()))
        return pb_utils.InferenceResponse([pb_utils.Tensor("out", numbers)])
"""


def save_slow(root: Path) -> None:
    """Gives back what it gets, one at a time, as slowly as its test says."""
    (root / "slow" / "1").mkdir(parents=True)
    (root.parent / "slow").mkdir()
    (root / "slow" / "1" / "model.py").write_text(SLOW)
    asked, told = (tensor(name, TensorProto.INT64, ["n", 1]) for name in ("in", "out"))
    text = config([asked], [told], batch=1, backend="python")
    (root / "slow" / "config.pbtxt").write_text(text)


@dataclass
class SlowModel:
    """The model that `save_slow` wrote; its files lie beside the repository, which is watched."""

    folder: Path

    def begun(self) -> list[int]:
        """The numbers that it began with, in order."""
        file = self.folder / "begun"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def go(self, seconds: float) -> None:
        """Let it answer after so long."""
        part = self.folder / "part"
        part.write_text(str(seconds))
        part.rename(self.folder / "go")


@pytest.fixture
def slow(repository: Path) -> Iterator[SlowModel]:
    model = SlowModel(repository.parent / "slow")
    yield model
    model.go(0.0)
    for name in ("go", "begun"):
        (model.folder / name).unlink(missing_ok=True)


def save_fragile(root: Path, name: str = "fragile", more: str = "") -> None:
    """Gives back what it gets; refuses 55 in words of its own and dies of 66."""
    (root / name / "1").mkdir(parents=True)
    (root / name / "1" / "model.py").write_text(FRAGILE)
    asked, told = (tensor(side, TensorProto.INT64, ["n", 1]) for side in ("in", "out"))
    text = config([asked], [told], batch=8, backend="python", more=more)
    (root / name / "config.pbtxt").write_text(text)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository") / "models"
    root.mkdir()
    save_table(root, "1", 1.0)
    save_table(root, "2", 10.0)
    save_fragile(root)
    save_fragile(root, "tokens", "model_transaction_policy { decoupled: true }")
    save_fragile(root, "talk", "sequence_batching { max_sequence_idle_microseconds: 1000000 }")
    save_slow(root)
    save_echo(root, "words", TensorProto.STRING, ["n", "w"])
    save_echo(root, "half", TensorProto.FLOAT16, ["n", 2, 3])
    save_echo(root, "flags", TensorProto.BOOL, ["a", "b"], batch=0)
    return root


def index(number: int) -> np.ndarray[Any, Any]:
    return np.array([number], np.int64)


# --- the adapter --------------------------------------------------------------------------------


async def test_a_model_is_described(server: TritonClient) -> None:
    await server.ready()
    info = await server.describe("table")
    assert (info.versions, info.max_batch_size) == (("1", "2"), 16)
    assert [(t.name, t.dtype, t.shape, t.optional) for t in info.inputs] == [
        ("index", np.dtype(np.int64), (1,), False)
    ]
    assert [(t.name, t.dtype, t.shape) for t in info.outputs] == [
        ("value", np.dtype(np.float32), (1,))
    ]
    assert (await server.describe("flags")).inputs[0].shape == (-1, -1)
    assert (await server.describe("words")).inputs[0].dtype == np.dtype(object)


async def test_the_latest_version_answers_unless_one_is_pinned(server: TritonClient) -> None:
    for asked, answered, value in ((None, "2", 70.0), ("1", "1", 7.0), ("2", "2", 70.0)):
        reply = await server.infer("table", asked, {"index": index(7)[np.newaxis]}, timeout=60)
        assert (reply.version, reply.outputs["value"].tolist()) == (answered, [[value]])


@pytest.mark.parametrize(("model", "version"), [("absent", None), ("table", "9")])
async def test_what_is_not_served_is_unavailable(
    server: TritonClient, model: str, version: str | None
) -> None:
    with pytest.raises(ModelUnavailable, match=model):
        await server.describe(model, version)
    with pytest.raises(ModelUnavailable, match=model):
        await server.infer(model, version, {"index": index(1)[np.newaxis]}, timeout=60)


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({"index": np.zeros((1, 2), np.int64)}, "unexpected shape for input 'index'"),
        ({"index": np.zeros((1, 1), np.int32)}, "data-type is 'INT32'"),
        ({"other": np.zeros((1, 1), np.int64)}, "unexpected inference input 'other'"),
        ({}, "missing required input"),
        ({"index": np.zeros((17, 1), np.int64)}, "batch-size must be <= 16"),
        ({"index": np.full((1, 1), 100)}, "out of data bounds"),
    ],
)
async def test_a_refusal_is_an_error_with_the_words_of_triton(
    server: TritonClient, inputs: dict[str, Any], text: str
) -> None:
    with pytest.raises(ModelError, match=text):
        await server.infer("table", None, inputs, timeout=60)


@pytest.mark.parametrize(
    "array",
    [
        np.array([["a", "bc"], ["", "ü" * 300]], object),
        np.array([[b"a", b"b\x00c"]], object),
    ],
)
async def test_strings_go_there_and_back(server: TritonClient, array: Any) -> None:
    reply = await server.infer("words", None, {"in": array}, timeout=60)
    expected = [
        [item.encode() if isinstance(item, str) else item for item in row] for row in array.tolist()
    ]
    assert reply.outputs["out"].tolist() == expected


async def test_odd_layouts_and_types_arrive_as_they_are(server: TritonClient) -> None:
    half = np.arange(24, dtype=np.float16).reshape(3, 4, 2).transpose(2, 1, 0)[:, ::2, :]
    assert not half.flags.c_contiguous
    reply = await server.infer("half", None, {"in": half}, timeout=60)
    np.testing.assert_array_equal(reply.outputs["out"], half)
    flags = np.array([[True, False, True]])
    reply = await server.infer("flags", None, {"in": flags}, timeout=60)
    np.testing.assert_array_equal(reply.outputs["out"], flags)
    assert reply.outputs["out"].dtype == np.dtype(bool)


async def test_tensors_larger_than_the_default_limit_of_grpc_pass(server: TritonClient) -> None:
    flags = np.ones((3_000, 3_000), bool)
    reply = await server.infer("flags", None, {"in": flags}, timeout=30)
    assert reply.outputs["out"].all()


async def test_a_server_that_is_not_there_is_unavailable(unused_port: int) -> None:
    server = TritonClient(f"127.0.0.1:{unused_port}")
    try:
        for call in (
            server.ready(),
            server.describe("table"),
            server.infer("table", None, {"index": index(1)}, timeout=60),
        ):
            with pytest.raises(Unavailable, match=rf"triton at 127\.0\.0\.1:{unused_port}"):
                await call
    finally:
        await server.close()


@pytest.fixture
def unused_port() -> int:
    from mqinfer.stack.ports import free_port

    return free_port()


async def test_a_request_that_takes_too_long_is_unavailable(
    triton: TritonServer, server: TritonClient
) -> None:
    await server.ready()
    with stopped(triton), pytest.raises(Unavailable, match="DEADLINE_EXCEEDED"):
        await server.infer("table", None, {"index": index(1)[np.newaxis]}, timeout=0.2)
    reply = await server.infer("table", None, {"index": index(1)[np.newaxis]}, timeout=60)
    assert reply.outputs["value"].tolist() == [[10.0]]


async def test_a_cancelled_request_ends_at_once(triton: TritonServer, server: TritonClient) -> None:
    await server.ready()
    with stopped(triton):
        request = asyncio.create_task(
            server.infer("table", None, {"index": index(1)[np.newaxis]}, timeout=60)
        )
        await asyncio.sleep(0)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
    await server.ready()


async def test_a_server_that_hangs_is_noticed_long_before_the_timeout(
    triton: TritonServer, server: TritonClient
) -> None:
    await server.ready()
    started = asyncio.get_running_loop().time()
    with stopped(triton), pytest.raises(Unavailable):
        await server.infer("table", None, {"index": index(1)[np.newaxis]}, timeout=60)
    # Two seconds; the rest is for a busy machine.
    assert asyncio.get_running_loop().time() - started < 40


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000",
        "ftp://x",
        "ipv4:10.0.0.1:8001",
        "ipv4:10.0.0.1,10.0.0.2",
        "a:b,c:8001",
        "a:8001,c:99999",
        "",
        ":8001",
    ],
)
def test_a_url_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is not host:port"):
        open_triton(url)


def test_a_tls_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"TLS file .*none\.pem"):
        TritonClient("127.0.0.1:1", tls_ca=tmp_path / "none.pem")


async def test_tls_to_a_server_without_it_is_unavailable(triton: TritonServer) -> None:
    server = TritonClient(f"grpcs://{triton.url}")
    with pytest.raises(Unavailable):
        await server.ready()
    await server.close()


# --- inference through it -----------------------------------------------------------------------


async def test_calls_are_gathered(inference: Inference) -> None:
    numbers = [number % 100 for number in range(500)]
    answers = await asyncio.gather(
        *(inference("table", None, {"index": index(number)}) for number in numbers)
    )
    assert [answer["value"].tolist() for answer in answers] == [[10.0 * n] for n in numbers]
    assert {(answer.model, answer.version) for answer in answers} == {("table", "2")}
    [queue] = inference.statistics().queues
    assert queue.items == 500
    assert queue.requests <= 500 // 16 + 8


async def test_versions_answer_side_by_side(inference: Inference) -> None:
    old, new = await asyncio.gather(
        inference("table", "1", {"index": index(3)}), inference("table", None, {"index": index(3)})
    )
    assert (old.version, old["value"].tolist()) == ("1", [3.0])
    assert (new.version, new["value"].tolist()) == ("2", [30.0])


async def test_what_does_not_fit_is_refused_before_it_is_sent(inference: Inference) -> None:
    with pytest.raises(
        BadTensor,
        match=r"model table: input 'index' is int64 \(2,\), the model wants int64 \(1,\)",
    ):
        await inference("table", None, {"index": np.zeros(2, np.int64)})
    with pytest.raises(BadTensor, match=r"input 'index' is missing; .* are 'index' int64 \(1,\)"):
        await inference("table", None, {"indx": index(1)})


async def test_bad_items_do_not_fail_their_neighbours(inference: Inference) -> None:
    numbers = [500 if number % 17 == 0 else number for number in range(64)]
    results = await asyncio.gather(
        *(inference("table", None, {"index": index(number)}) for number in numbers),
        return_exceptions=True,
    )
    for number, result in zip(numbers, results, strict=True):
        if number == 500:
            assert isinstance(result, ModelError)
            assert "out of data bounds" in str(result)
        else:
            assert isinstance(result, Answer)
            assert result["value"].tolist() == [10.0 * number]


async def test_what_a_model_says_in_words_like_those_of_triton_is_its_own(
    inference: Inference,
) -> None:
    poison = 55
    numbers = [1, 2, 3, poison, 4, 5, 6, 7]
    results = await asyncio.gather(
        *(inference("fragile", None, {"in": index(number)}) for number in numbers),
        return_exceptions=True,
    )
    for number, result in zip(numbers, results, strict=True):
        if number == poison:
            assert isinstance(result, ModelError)
            assert "record not found" in str(result)
        else:
            assert isinstance(result, Answer)
            assert result["out"].tolist() == [number]


async def test_a_model_whose_process_died_is_loaded_anew_and_its_killer_fails_alone(
    inference: Inference,
) -> None:
    context = Context(id="1", stage="s", sequence=1)
    token = current.set(context)
    innocents = [
        asyncio.create_task(inference("fragile", None, {"in": index(number)}))
        for number in range(20)
    ]
    current.reset(token)
    poison = asyncio.create_task(inference("fragile", None, {"in": index(66)}))
    await until(lambda: "not healthy" in (inference.blocked([Model("fragile")]) or ""))
    answer = await inference("table", None, {"index": index(1)})
    assert answer["value"].tolist() == [10.0]
    answers = await asyncio.gather(*innocents)
    assert [answer["out"].tolist() for answer in answers] == [[number] for number in range(20)]
    assert context.waited > 0
    with pytest.raises(ModelError, match="while this item was alone in its request"):
        await poison
    assert (await inference("fragile", None, {"in": index(5)}))["out"].tolist() == [5]


async def test_a_server_that_does_not_let_models_be_loaded_is_named(
    repository: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    shutil.copytree(repository / "fragile", models / "fragile")
    server = TritonServer(
        tmp_path / "data", log=tmp_path / "log", models=models, model_control="none"
    )
    await server.bring_up()
    client = TritonClient(server.url)
    try:
        async with Inference(client) as inference:
            poison = asyncio.create_task(inference("fragile", None, {"in": index(66)}))
            await until(
                lambda: (
                    "model-control-mode=explicit" in (inference.blocked([Model("fragile")]) or "")
                )
            )
            poison.cancel()
            await asyncio.wait([poison])
    finally:
        await client.close()
        await server.stop()


async def test_many_processes_on_a_slow_model_have_each_call_executed_once(
    triton: TritonServer, slow: SlowModel
) -> None:
    slow.go(1.0)
    async with contextlib.AsyncExitStack() as stack:
        workers = []
        for _ in range(3):
            server = TritonClient(triton.url)
            stack.push_async_callback(server.close)
            workers.append(await stack.enter_async_context(Inference(server)))
        answers = await asyncio.gather(
            *(workers[n % 3]("slow", None, {"in": index(n)}) for n in range(12))
        )
        assert [answer["out"].tolist() for answer in answers] == [[n] for n in range(12)]
        assert sorted(slow.begun()) == list(range(12))
        for worker in workers:
            [queue] = worker.statistics().queues
            assert (queue.limit.slots, queue.resent, worker.statistics().blocked) == (1, 0, None)


class Ask(Message, subject="ask"):
    value: int


@pytest.mark.parametrize(("model", "text"), [("tokens", "decoupled"), ("talk", "sequence model")])
async def test_a_model_that_no_call_fits_is_named_by_check_and_by_the_call(
    server: TritonClient, inference: Inference, model: str, text: str
) -> None:
    app = App("refused")
    handle = app.model(model)

    @app.stage
    async def ask(message: Ask) -> None:
        await handle(**{"in": index(message.value)})

    report, stages = check.check_wiring(app)
    await check.check_models(stages, server, report)
    assert [f"stage ask: model {model} is " in problem for problem in report.problems] == [True]
    assert text in report.problems[0]
    with pytest.raises(ModelError, match=text):
        await inference(model, None, {"in": index(1)})


async def test_a_worker_does_not_begin_with_a_sequence_model(
    triton: TritonServer, tmp_path: Path
) -> None:
    app = App("talks")
    talk = app.model("talk")

    @app.stage
    async def ask(message: Ask) -> None:
        await talk(**{"in": index(message.value)})

    async with nats_only(tmp_path) as settings:
        settings = replace(settings, triton_url=triton.url)
        async with Harness(app, settings) as harness:
            await harness.publish(Ask(1))
            with pytest.raises(ConfigurationError, match="stage ask: model talk is a sequence"):
                await Worker(app, settings=settings).run()
            assert await harness.lag("ask") in (1, -1)  # its consumer is made meanwhile
            assert len(await harness.stored()) == 1
            assert await harness.dead() == []


async def test_strings_and_models_without_batch_dimension(inference: Inference) -> None:
    words = await asyncio.gather(
        *(inference("words", None, {"in": np.array(["a" * n, "b"])}) for n in range(5))
    )
    assert [answer["out"].tolist() for answer in words] == [[b"a" * n, b"b"] for n in range(5)]
    flags = await inference("flags", None, {"in": np.ones((2, 2), bool)})
    assert flags["out"].shape == (2, 2)


async def test_a_cancelled_caller_leaves_its_neighbours(inference: Inference) -> None:
    calls = [
        asyncio.create_task(inference("table", None, {"index": index(number)}))
        for number in range(90)
    ]
    # Not `until`: on a quick machine all are answered by the time of its second look.
    while not any(queue.calls for queue in inference.statistics().queues):  # noqa: ASYNC110
        await asyncio.sleep(0)
    for call in calls[::3]:
        call.cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    for number, result in enumerate(results):
        if number % 3:
            assert isinstance(result, Answer)
            assert result["value"].tolist() == [10.0 * number]


async def test_a_killed_server_fails_no_call(triton: TritonServer, server: TritonClient) -> None:
    answered = 0
    going = True
    context = Context(id="1", stage="s", sequence=1)

    async def work(number: int) -> None:
        nonlocal answered
        current.set(context)
        while going:
            number = (number + 1) % 100
            answer = await inference("table", None, {"index": index(number)})
            assert answer["value"].tolist() == [10.0 * number]
            answered += 1

    async def more(calls: int) -> None:
        seen = answered
        await until(lambda: answered >= seen + calls)

    inference = Inference(server)
    async with asyncio.TaskGroup() as side:
        running = side.create_task(inference.run())
        async with asyncio.TaskGroup() as group:
            for number in range(64):
                group.create_task(work(number))
            for _ in range(2):
                await more(500)
                triton.kill()
                await until(lambda: inference.blocked([Model("table")]))
                # Whoever was not answered waits, and its stage's clock stands still.
                await until(lambda: inference.statistics().queues[0].batcher.waiting == 64)
                assert context.waiting_since is not None
                seen = answered
                for _ in range(100):
                    await asyncio.sleep(0)
                assert answered == seen
                await triton.bring_up()
                back = asyncio.get_running_loop().time()
                await more(1)
                assert asyncio.get_running_loop().time() - back < 90  # gRPC by itself: up to 120
                assert inference.blocked([Model("table")]) is None
            going = False
        running.cancel()
    assert context.waiting_since is None
    assert context.waited > 0
    [queue] = inference.statistics().queues
    assert queue.refused == 0
    assert queue.resent > 0


async def test_a_model_unloaded_while_in_use_stops_only_its_callers(
    triton: TritonServer, server: TritonClient, repository: Path
) -> None:
    save_table(repository, "1", 5.0, name="passing")
    inference = Inference(server, refresh=0.2, limit=AdaptiveLimit)
    async with asyncio.TaskGroup() as side:
        running = side.create_task(inference.run())
        # Not loaded yet: the call waits for it.
        first = await asyncio.wait_for(inference("passing", None, {"index": index(2)}), 240)
        assert first["value"].tolist() == [10.0]
        away = repository.parent / "away"
        shutil.move(repository / "passing", away)
        # Noticed although nobody calls it.
        await until(lambda: inference.blocked([Model("passing")]))
        waiting = asyncio.create_task(inference("passing", None, {"index": index(3)}))
        other = await inference("table", None, {"index": index(3)})
        assert other["value"].tolist() == [30.0]
        assert inference.blocked([Model("table")]) is None
        assert not waiting.done()
        shutil.move(away, repository / "passing")
        assert (await asyncio.wait_for(waiting, 240))["value"].tolist() == [15.0]
        save_table(repository, "2", 7.0, name="passing")

        async def newest() -> str:
            return (await inference("passing", None, {"index": index(1)})).version

        async with asyncio.timeout(60):
            while await newest() != "2":  # noqa: ASYNC110 - Triton looks when it likes
                await asyncio.sleep(0.05)
        running.cancel()


@contextlib.contextmanager
def stopped(triton: TritonServer) -> Iterator[None]:
    """Let Triton hang, as if its machine did."""
    assert triton.pid is not None
    server = psutil.Process(triton.pid)
    processes = [server, *server.children(recursive=True)]
    for process in processes:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in reversed(processes):
            os.kill(process.pid, signal.SIGCONT)
