"""Models that answer in parts, by a real tritonserver: decoupled models of its Python backend."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from mqinfer import App, Message
from mqinfer.adapters.spread import Spread
from mqinfer.adapters.triton import TritonClient, open_triton
from mqinfer.adapters.tritonerrors import meaning_in_stream
from mqinfer.errors import ModelError, ModelUnavailable, Unavailable
from mqinfer.inference import streaming
from mqinfer.inference.calls import ModelDied
from mqinfer.inference.inference import Inference
from mqinfer.model import Model
from mqinfer.operate import check
from mqinfer.stack.ports import free_port
from mqinfer.stack.triton import TritonServer
from mqinfer.testing import Harness, nats_only, until
from tests.support.models import config, tensor

# Counts to what it gets, in a thread for each request. 55 is refused in words that Triton has, too,
# 56 after a part; of 66 it dies after a part; 77 goes on until it is cancelled, which it notes; 88
# is five parts, of which the last two wait for a file.
pytestmark = pytest.mark.triton

TOKENS = """
import os
import sys
import threading
import time

sys.path[:0] = os.environ["PYTHONPATH"].split(":")
import numpy as np
import triton_python_backend_utils as pb_utils

NOTES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "notes")

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            numbers = pb_utils.get_input_tensor_by_name(request, "in").as_numpy()
            work = (int(numbers.ravel()[0]), request, request.get_response_sender())
            threading.Thread(target=self.answer, args=work).start()
        return None

    def answer(self, number, request, sender):
        end = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        def part(value, flags=0):
            tensors = [pb_utils.Tensor("out", np.array([[value]], np.int64))]
            sender.send(pb_utils.InferenceResponse(tensors), flags=flags)
        if number in (55, 56):
            for value in range(number - 55):
                part(value)
            error = pb_utils.TritonError("the record is not available")
            sender.send(pb_utils.InferenceResponse(error=error), flags=end)
        elif number == 66:
            part(0)
            time.sleep(0.1)
            os._exit(1)
        elif number == 77:
            value = 0
            while not request.is_cancelled():
                part(value)
                value += 1
                time.sleep(0.01)
            sender.send(flags=end)
            open(os.path.join(NOTES, "cancelled"), "w").close()
        elif number == 88:
            for value in range(5):
                while value == 3 and not os.path.exists(os.path.join(NOTES, "go")):
                    time.sleep(0.01)
                part(value)
            sender.send(flags=end)
        else:
            for value in range(number):
                # The last one says that it is; without any part a word of its own does.
                part(value, end if number % 2 and value == number - 1 else 0)
            if number % 2 == 0:
                sender.send(flags=end)
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository") / "models"
    save_tokens(root)
    return root


def save_tokens(root: Path) -> None:
    (root / "tokens" / "1").mkdir(parents=True)
    (root.parent / "notes").mkdir()
    (root / "tokens" / "1" / "model.py").write_text(TOKENS)
    asked, told = (tensor(side, TensorProto.INT64, ["n", 1]) for side in ("in", "out"))
    more = "model_transaction_policy { decoupled: true }"
    text = config([asked], [told], batch=8, backend="python", more=more)
    (root / "tokens" / "config.pbtxt").write_text(text)


async def collect(inference: Inference, number: int) -> list[int]:
    item = {"in": np.array([number], np.int64)}
    return [part["out"].item() async for part in inference.stream(Model("tokens"), item)]


async def again(inference: Inference, number: int) -> list[int]:
    """As a message that comes again whenever a server was away."""
    while True:
        with contextlib.suppress(Unavailable):
            return await collect(inference, number)


async def test_the_parts_of_many_items_side_by_side(inference: Inference) -> None:
    found = await asyncio.gather(*(collect(inference, number) for number in range(40)))
    assert found == [list(range(number)) for number in range(40)]


@pytest.mark.parametrize("number", [55, 56])
async def test_an_error_of_the_model_is_the_items_own(inference: Inference, number: int) -> None:
    with pytest.raises(ModelError, match="the record is not available"):
        await collect(inference, number)


async def test_leaving_the_loop_early_cancels_the_request_on_the_server(
    inference: Inference, repository: Path
) -> None:
    async for part in inference.stream(Model("tokens"), {"in": np.array([77], np.int64)}):
        if part["out"].item() == 3:
            break
    await until((repository.parent / "notes" / "cancelled").exists)


async def test_a_model_that_dies_ends_all_its_streams_and_its_killer_fails_alone(
    inference: Inference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "SILENT", 1.0)
    endless = asyncio.create_task(collect(inference, 77))
    killer = asyncio.create_task(again(inference, 66))
    # Both hold a slot, and there are no more: Triton tells them nothing.
    innocents = [asyncio.create_task(again(inference, number)) for number in range(1, 9)]
    with pytest.raises(Unavailable, match="broke off after"):
        await endless
    assert await asyncio.gather(*innocents) == [list(range(number)) for number in range(1, 9)]
    while not killer.done():
        assert await again(inference, 2) == [0, 1]
    with pytest.raises(ModelError, match="while this item was alone in its request"):
        await killer


async def test_what_is_not_served_or_does_not_fit_is_told_apart(server: TritonClient) -> None:
    item = np.array([[1]], np.int64)
    with pytest.raises(ModelUnavailable, match="unknown model"):
        await anext(server.stream("absent", None, {"in": item}))
    with pytest.raises(ModelError, match="unexpected shape"):
        await anext(server.stream("tokens", None, {"in": item[0]}))


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    port = free_port()
    server = TritonClient(f"127.0.0.1:{port}")
    with pytest.raises(Unavailable, match=rf"triton at 127\.0\.0\.1:{port}"):
        await anext(server.stream("tokens", None, {"in": np.zeros((1, 1), np.int64)}))
    await server.close()


async def test_a_connection_that_is_closed_meanwhile_is_no_cancellation(
    triton: TritonServer,
) -> None:
    server = TritonClient(triton.url)
    stream = server.stream("tokens", None, {"in": np.array([[77]], np.int64)})
    await anext(stream)
    await server.close()
    with pytest.raises(Unavailable, match="connection was closed"):
        async for _ in stream:
            pass


async def test_several_servers_are_streamed_from_as_one(triton: TritonServer) -> None:
    spread = open_triton(f"{triton.url},{triton.url.replace('127.0.0.1', 'localhost')}")
    assert isinstance(spread, Spread)
    async with Inference(spread) as inference:
        found = await asyncio.gather(*(collect(inference, number) for number in range(10)))
    assert found == [list(range(number)) for number in range(10)]
    await spread.close()


async def test_a_server_that_dies_breaks_the_answer_off(tmp_path: Path) -> None:
    models = tmp_path / "models"
    save_tokens(models)
    server = TritonServer(tmp_path / "data", log=tmp_path / "log", models=models)
    await server.bring_up()
    client = TritonClient(server.url, keepalive=1.0)
    try:
        async with Inference(client) as inference:
            stream = inference.stream(Model("tokens"), {"in": np.array([77], np.int64)})
            await anext(stream)
            server.kill()
            with pytest.raises(Unavailable, match="broke off after"):
                async for _ in stream:
                    pass
            caller = asyncio.create_task(collect(inference, 3))
            await until(lambda: inference.statistics().blocked)
            await server.bring_up()
            assert await caller == [0, 1, 2]
    finally:
        await client.close()
        await server.stop()


class Ask(Message, subject="ask"):
    value: int


class Token(Message, subject="token"):
    value: int


async def test_a_message_whose_answer_breaks_off_is_answered_once_and_spends_no_attempt(
    tmp_path: Path,
) -> None:
    app = App("talk")
    tokens = app.model("tokens")

    @app.stage(early=True, attempts=1)
    async def talk(ask: Ask) -> AsyncIterator[Token]:
        async for part in tokens.stream(**{"in": np.array([ask.value], np.int64)}):
            yield Token(part["out"].item())

    models = tmp_path / "models"
    save_tokens(models)
    triton = TritonServer(tmp_path / "data", log=tmp_path / "log", models=models)
    try:
        await triton.bring_up()
        async with nats_only(tmp_path) as settings:
            settings = replace(settings, triton_url=triton.url)
            async with Harness(app, settings) as harness, harness.worker():
                await harness.publish(Ask(88))

                async def sent(count: int) -> bool:
                    return len(await harness.messages(Token)) == count

                await until(lambda: sent(3), "the first parts")
                triton.kill()
                (tmp_path / "notes" / "go").touch()
                await triton.bring_up()
                await until(lambda: sent(5), "all parts")
                assert await harness.messages(Token) == [Token(value) for value in range(5)]
                assert await harness.dead() == []
    finally:
        await triton.stop()


@pytest.mark.parametrize(
    ("text", "said_by_model", "kind"),
    [
        ("Stub process 'tokens_0_0' is not healthy.", True, ModelDied),
        ("Request for unknown model: 'tokens' is not found", False, ModelUnavailable),
        ("the record is not available", True, ModelError),
        ("unexpected shape for input 'in'", False, ModelError),
    ],
)
def test_what_an_error_in_a_stream_means(
    text: str, said_by_model: bool, kind: type[Exception]
) -> None:
    error = meaning_in_stream(text, "tokens", "host:1", said_by_model=said_by_model)
    assert type(error) is kind
    assert text in str(error)


# --- check --------------------------------------------------------------------------------------


async def test_check_names_the_call_that_has_to_take_parts(server: TritonClient) -> None:
    app = App("parts")
    tokens = app.model("tokens")

    @app.stage
    async def whole(message: Ask) -> None:
        await tokens(**{"in": np.array([message.value], np.int64)})

    @app.stage
    async def in_parts(message: Ask) -> None:
        async for _ in tokens.stream(**{"in": np.array([message.value], np.int64)}):
            pass

    report, stages = check.check_wiring(app)
    await check.check_models(stages, server, report)
    [problem] = report.problems
    assert problem.startswith("stage whole: model tokens is decoupled")
    assert "model.stream(...)" in problem
    assert "test_tritonstream.py" in problem
