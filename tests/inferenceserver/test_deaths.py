"""A process of a model that dies: what it was at is told, the rest goes on, and it comes back."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from mqinfer.adapters.triton import TritonClient
from mqinfer.errors import ModelUnavailable
from mqinfer.inference.calls import ModelDied
from mqinfer.inference.inference import Inference
from mqinfer.model import Model
from mqinfer.stack import InferenceServer, probe
from mqinfer.testing import until
from tests.support.models import save_rounds, save_table

FOR_EVER = 10**12


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository") / "models"
    root.mkdir()
    save_table(root, "1", 10.0)
    save_rounds(root, "slow", batch=1)
    save_rounds(root, "pair", batch=1)
    text = (root / "pair" / "config.pbtxt").read_text()
    (root / "pair" / "config.pbtxt").write_text(text.replace("count: 1", "count: 2"))
    return root


@pytest.fixture
async def server(ours: InferenceServer) -> AsyncIterator[TritonClient]:
    server = TritonClient(ours.url)
    yield server
    await server.close()


def processes(ours: InferenceServer, title: str) -> list[psutil.Process]:
    """Those of a version: `model/1`."""
    assert ours.pid is not None
    found = []
    for one in psutil.Process(ours.pid).children():
        try:
            if one.cmdline()[-1:] == [title]:
                found.append(one)
        except psutil.Error:  # it ends just now
            pass
    return found


async def rounds(server: TritonClient, number: int, model: str = "slow") -> list[int]:
    reply = await server.infer(model, None, {"rounds": np.array([[number]])}, timeout=60)
    [found] = reply.outputs["out"].tolist()
    return list(found)


async def pending(ours: InferenceServer, model: str, count: int) -> bool:
    """Whether so many requests wait in the server for a model."""
    assert ours.metrics_port is not None
    _, body = await probe.http(ours.metrics_port, "/metrics")
    gauge = f'nv_inference_pending_request_count{{model="{model}",version="1"}} {count}'
    return gauge in body.decode().splitlines()


async def at_work(ours: InferenceServer, title: str, seconds: float = 0.1) -> psutil.Process:
    """The process of a version that has worked for so long, by its own time."""
    began: dict[psutil.Process, float] = {}
    while True:
        for one in processes(ours, title):
            try:
                used = one.cpu_times().user
            except psutil.Error:
                continue
            if used - began.setdefault(one, used) > seconds:
                return one
        await asyncio.sleep(0.02)


async def test_what_it_was_at_is_told_and_what_waited_waits_on(
    ours: InferenceServer, server: TritonClient
) -> None:
    doomed = asyncio.create_task(rounds(server, FOR_EVER))
    process = await at_work(ours, "slow/1")
    waiting = [asyncio.create_task(rounds(server, number)) for number in range(5)]
    reply = await server.infer("table", None, {"index": np.array([[7]])}, timeout=60)
    assert reply.outputs["value"].tolist() == [[70.0]], "another model is not held up"
    await until(lambda: pending(ours, "slow", 5), "all of them in its queue")
    process.kill()
    with pytest.raises(ModelDied, match="Stub process 'slow_0_0' is not healthy"):
        await doomed
    assert await asyncio.gather(*waiting) == [[number] for number in range(5)]
    [again] = processes(ours, "slow/1")
    assert again.pid != process.pid
    assert "ended by SIGKILL" in ours.log.read_text()


async def test_it_is_not_ready_until_it_is_back(
    ours: InferenceServer, server: TritonClient
) -> None:
    [process] = processes(ours, "table/1")
    process.kill()

    async def answer() -> float:
        reply = await server.infer("table", None, {"index": np.array([[3]])}, timeout=60)
        return float(reply.outputs["value"][0, 0])

    async with asyncio.timeout(60):
        while True:
            try:
                assert await answer() == 30.0
                break
            except (ModelDied, ModelUnavailable):
                await asyncio.sleep(0.01)
    assert (await server.describe("table")).versions == ("1",)


async def test_one_of_two_instances_leaves_the_other(
    ours: InferenceServer, server: TritonClient
) -> None:
    doomed = [asyncio.create_task(rounds(server, FOR_EVER, "pair"))]
    first = await at_work(ours, "pair/1")
    assert await rounds(server, 2, "pair") == [2]
    first.kill()
    with pytest.raises(ModelDied):
        await doomed[0]
    assert await rounds(server, 3, "pair") == [3]
    await until(lambda: len(processes(ours, "pair/1")) == 2)


async def test_a_killer_is_found_and_the_others_are_answered(
    ours: InferenceServer, server: TritonClient
) -> None:
    """As far as mqinfer is concerned: here somebody kills whatever works for long."""
    async with Inference(server) as inference:

        async def kill() -> None:
            while True:
                # More than a start takes.
                (await at_work(ours, "slow/1", 1.5)).kill()

        killing = asyncio.create_task(kill())
        numbers = [1, 2, FOR_EVER, 3, 4]
        results = await asyncio.wait_for(
            asyncio.gather(
                *(inference("slow", None, {"rounds": np.array([n])}) for n in numbers),
                return_exceptions=True,
            ),
            120,
        )
        killing.cancel()
        for number, result in zip(numbers, results, strict=True):
            if number == FOR_EVER:
                assert "while this item was alone in its request" in str(result)
            else:
                assert not isinstance(result, BaseException)
                assert result["out"].tolist() == [number]
        assert inference.blocked([Model("slow")]) is None


async def test_one_that_cannot_come_back_is_told_and_comes_back_when_it_can(
    ours: InferenceServer, server: TritonClient, repository: Path
) -> None:
    away = repository.parent / "model.onnx"
    shutil.copy(repository / "slow" / "1" / "model.onnx", away)
    (repository / "slow" / "1" / "model.onnx").write_bytes(b"nothing")
    await until(lambda: "model slow does not load" in ours.log.read_text())
    assert await rounds(server, 1) == [1], "what was served stays"
    [process] = processes(ours, "slow/1")
    process.kill()

    async def reasons() -> list[str]:
        return [one.reason for one in await server.versions() if one.model == "slow"]

    async with asyncio.timeout(60):
        while "cannot load" not in " ".join(await reasons()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    with pytest.raises(ModelUnavailable, match="not at ready state"):
        await rounds(server, 1)
    shutil.move(away, repository / "slow" / "1" / "model.onnx")
    async with asyncio.timeout(60):
        while await reasons() != [""]:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    assert await rounds(server, 1) == [1]


async def test_nothing_is_left_of_a_killed_server(tmp_path: Path, repository: Path) -> None:
    server = InferenceServer(tmp_path / "data", log=tmp_path / "log", models=repository)
    await server.start()
    await server.wait_ready()
    family = processes(server, "table/1") + processes(server, "pair/1")
    assert len(family) == 3
    assert server.pid is not None
    psutil.Process(server.pid).kill()
    await server.wait()
    await until(lambda: not any(one.is_running() for one in family))
    await server.stop()
