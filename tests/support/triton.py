"""A server of models for the tests that need no other of the stack: Triton where it can be had.

Where it cannot, our own server of its protocol takes its place, and tests of what Triton alone does
(its Python models, its flags) are skipped with the reason: `pytest.mark.triton`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import pytest_asyncio

from mqinfer.adapters.triton import TritonClient
from mqinfer.inference.inference import Inference
from mqinfer.settings import Settings
from mqinfer.stack import InferenceServer, StackConfigurationError, TritonServer
from mqinfer.stack.triton import find_triton
from tests.support.models import save_affine
from tests.support.running import running


@cache
def why_no_triton() -> str | None:
    """Why the embedded Triton cannot run here; None if it can."""
    try:
        find_triton()
    except StackConfigurationError as error:
        return str(error)
    return None


def server_of_models() -> type[TritonServer]:
    """What serves models in these tests."""
    return TritonServer if why_no_triton() is None else InferenceServer


@asynccontextmanager
async def serving(
    folder: Path, models: Path, kind: type[TritonServer] | None = None
) -> AsyncIterator[TritonServer]:
    """Serve a model repository, on a port of its own; new versions are taken up (`poll`).

    Args:
        folder: for the server's files and its log.
        models: the repository.
        kind: what serves it, `server_of_models()` by default.
    """
    kind = kind or server_of_models()
    made = kind(folder / "data", log=folder / "triton.log", models=models, metrics_port=0)
    async with running(made) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def triton(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[TritonServer]:
    """A server for all tests of a file, which says with `repository` what it serves."""
    async with serving(tmp_path_factory.mktemp("triton"), repository) as server:
        with kept(server):
            yield server


@contextmanager
def kept(server: TritonServer) -> Iterator[None]:
    """Start a server again that died by itself, as `mqinfer up` does, whatever the tests do.

    A model's process that dies of what a test sends may hold a lock that it shares with Triton,
    whose Python backend then ends the whole server (an uncaught `lock_exception`). A thread, as
    the event loop of the fixture stands still while tests run.
    """
    over = threading.Event()

    def keep() -> None:
        while not over.wait(0.2):
            if server.died and not server._killed:  # by a test, which starts it again
                asyncio.run(server.start())

    keeper = threading.Thread(target=keep, name="triton's keeper", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()


@pytest.fixture
async def server(triton: TritonServer) -> AsyncIterator[TritonClient]:
    server = TritonClient(triton.url, keepalive=1.0)
    yield server
    await server.close()


@pytest.fixture
async def inference(server: TritonClient) -> AsyncIterator[Inference]:
    async with Inference(server) as inference:
        yield inference
    assert inference.statistics().tasks == 0


@contextmanager
def own_server(folder: Path, models: Path) -> Iterator[TritonServer]:
    """Our own server of a model repository: cheap, and the same protocol and words.

    Args:
        folder: for the server's files and its log.
        models: the repository.
    """
    server = InferenceServer(folder / "data", log=folder / "server.log", models=models)
    try:
        asyncio.run(server.bring_up())
        yield server
    finally:
        asyncio.run(server.stop())


@pytest.fixture
async def with_affine(nats: Settings, url: str, tmp_path: Path) -> AsyncIterator[Settings]:
    """Settings of all servers, with a model `affine` on our own of models."""
    models = tmp_path / "models"
    models.mkdir()
    save_affine(models, "affine")
    async with serving(tmp_path, models, InferenceServer) as server:
        yield replace(nats, triton_url=server.url, clickhouse_url=url)
