"""Packed models behind a server: two that want different versions of a library, side by side.

Their environments come from PyPI the first time, and are kept in the user's cache (see
`mqinfer.packed.runtime.environment`).
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import pytest_asyncio

from mqinfer import App, Message
from mqinfer.adapters.triton import TritonClient
from mqinfer.errors import ModelError, ModelRejected
from mqinfer.inference.calls import ModelDied
from mqinfer.packed import mlflow
from mqinfer.packed.kinds import PythonClass
from mqinfer.packed.pack import Place, pack
from mqinfer.stack import StackConfigurationError, TritonServer
from mqinfer.stack.inferenceserver.server import InferenceServer
from mqinfer.stack.triton import find_triton
from mqinfer.testing import Harness, until
from tests.packed import folders
from tests.support.triton import kept

# By the name of the model, of what there are wheels for this Python: two versions of scikit-learn,
# where it can be of the two incompatible NumPys, too.
OLD, NEW, SEVEN = "iris_old", "iris_new", "seven"
VERSIONS = (
    {OLD: ("1.4.2", "1.26.4"), NEW: ("1.7.2", "2.2.6")}
    if sys.version_info < (3, 13)
    else {OLD: ("1.6.1", "2.1.3"), NEW: ("1.7.2", "2.2.6")}
)
WANTED = {
    name: (f"scikit-learn=={sklearn}", f"numpy=={numpy}")
    for name, (sklearn, numpy) in VERSIONS.items()
}
FLOWERS = np.array(
    [[5.1, 3.5, 1.4, 0.2], [6.4, 3.2, 4.5, 1.5], [6.3, 3.3, 6.0, 2.5], [4.9, 3.0, 1.4, 0.2]],
    np.float32,
)
LABELS = [0, 1, 2, 0]

SERVERS = {"triton": TritonServer, "onnx": InferenceServer}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    (folder / "iris.py").write_text(folders.IRIS)
    for name, requirements in WANTED.items():
        place = Place(to=folder / "models" / name, requirements=requirements)
        pack(PythonClass(f"{folder / 'iris.py'}:Iris"), place)
    folders.save_mlflow(folder / "seven", columns=False)
    pack(mlflow.read(folder / "seven"), Place(to=folder / "models" / SEVEN, python=sys.executable))
    return folder / "models"


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=SERVERS)
async def url(
    request: pytest.FixtureRequest, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    """The address of each server that serves them."""
    kind, folder = SERVERS[request.param], tmp_path_factory.mktemp("server")
    if kind is TritonServer:
        try:
            find_triton()
        except StackConfigurationError as error:
            pytest.skip(str(error))
    server = kind(folder / "data", log=folder / "server.log", models=repository)
    try:
        await server.bring_up(600)  # it imports scikit-learn, which takes a while
        with kept(server):
            yield server.url
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[TritonClient]:
    client = TritonClient(url)
    try:
        yield client
    finally:
        await client.close()


async def test_both_answer_at_once_each_with_its_own_libraries(url: str) -> None:
    async with connected(url) as client:
        calls = (client.infer(name, None, {"x": FLOWERS}, timeout=60) for name in WANTED)
        old, new = (reply.outputs for reply in await asyncio.gather(*calls))
    by = [tuple(one["by"][0, 0].decode().split()) for one in (old, new)]
    assert by == [*VERSIONS.values()]
    for answer in (old, new):
        assert answer["label"].ravel().tolist() == LABELS
        assert answer["scores"].dtype == np.float32
    np.testing.assert_allclose(old["scores"], new["scores"], atol=1e-3)


async def test_a_folder_of_mlflow_answers_beside_them(url: str) -> None:
    async with connected(url) as client:
        reply = await client.infer(SEVEN, None, {"input": FLOWERS[:, :2]}, timeout=60)
    assert reply.outputs["output"].tolist() == (7 * FLOWERS[:, :2]).tolist()


class Flower(Message, subject="flower"):
    sides: tuple[float, float, float, float]


class Verdict(Message, subject="verdict"):
    old: int
    new: int


async def test_stages_ask_both_and_what_they_refuse_is_dead_alone(url: str, nats: Any) -> None:
    app = App("flowers")
    old, new = app.model(OLD), app.model(NEW)

    @app.stage(attempts=1)
    async def judge(flower: Flower) -> Verdict:
        x = np.array(flower.sides, np.float32)
        first, second = await asyncio.gather(old(x=x), new(x=x))
        return Verdict(old=first["label"].item(), new=second["label"].item())

    settings = replace(nats, triton_url=url)
    flowers = [Flower(sides=tuple(map(float, sides))) for sides in FLOWERS]
    async with Harness(app, settings) as harness:
        await harness.publish(*flowers * 5, Flower(sides=(-1.0, 0.0, 0.0, 0.0)))
        await harness.publish(Flower(sides=(100.0, 1.0, 1.0, 1.0)))
        await harness.drain()
        verdicts = await harness.messages(Verdict)
        assert sorted(one.old for one in verdicts) == sorted(LABELS * 5)
        assert all(one.old == one.new for one in verdicts)
        failed, rejected = sorted(await harness.dead(), key=lambda one: one.kind)
        assert failed.kind == "failed"
        assert "no flower is smaller than nothing (iris.py, line 24)" in failed.reason
        # What the model says of an item is for whoever sent it, in its own words.
        assert (rejected.kind, rejected.reason) == (
            "rejected",
            "socket closed: no flower is so large",
        )


async def test_a_bad_request_does_not_fail_its_neighbours(url: str) -> None:
    async with connected(url) as client:
        good = [client.infer(NEW, None, {"x": FLOWERS}, timeout=60) for _ in range(4)]
        bad = client.infer(NEW, None, {"x": -FLOWERS}, timeout=60)
        *answers, refused = await asyncio.gather(*good, bad, return_exceptions=True)
    assert isinstance(refused, ModelError)
    assert not isinstance(refused, ModelRejected)
    assert "no flower is smaller" in str(refused)
    for answer in answers:
        assert answer.outputs["label"].ravel().tolist() == LABELS  # type: ignore[union-attr]


async def test_a_death_is_one_and_the_model_is_loaded_anew(url: str, repository: Path) -> None:
    mine = str(repository / OLD / "1")
    (victim,) = [
        process
        for process in psutil.process_iter(["cmdline"])
        if mine in (process.info["cmdline"] or ()) and "child.py" in str(process.info["cmdline"])
    ]
    victim.kill()
    async with connected(url) as client:
        with pytest.raises(ModelDied):
            await client.infer(OLD, None, {"x": FLOWERS}, timeout=60)
        other = await client.infer(NEW, None, {"x": FLOWERS}, timeout=60)
        assert other.outputs["label"].ravel().tolist() == LABELS
        await client.reload(OLD)

        async def again() -> bool:
            reply = await client.infer(OLD, None, {"x": FLOWERS}, timeout=60)
            return reply.outputs["label"].ravel().tolist() == LABELS

        assert await until(again, "an answer")


async def test_a_version_that_is_packed_meanwhile_is_taken_up(url: str, repository: Path) -> None:
    place = Place(to=repository / NEW, requirements=WANTED[NEW])
    packed = pack(PythonClass(f"{repository.parent / 'iris.py'}:Iris"), place)
    async with connected(url) as client:

        async def answers() -> bool:
            listed = await client.versions()
            return any(
                (one.model, one.version, one.ready) == (NEW, packed.version, True) for one in listed
            )

        await until(answers, "the new version", timeout=120)
        reply = await client.infer(NEW, packed.version, {"x": FLOWERS}, timeout=60)
        assert reply.outputs["label"].ravel().tolist() == LABELS
