"""A real tritonserver for the tests that need no other server of the stack."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from mqinfer.stack import TritonServer


@asynccontextmanager
async def serving(
    folder: Path, models: Path, kind: type[TritonServer] = TritonServer
) -> AsyncIterator[TritonServer]:
    """Serve a model repository, on a port of its own; new versions are taken up (`poll`).

    Args:
        folder: for the server's files and its log.
        models: the repository.
        kind: what serves it.
    """
    server = kind(folder / "data", log=folder / "triton.log", models=models)
    await server.start()
    try:
        await server.wait_ready()
        yield server
    finally:
        await server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def triton(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[TritonServer]:
    """A tritonserver for all tests of a file, which says with `repository` what it serves."""
    async with serving(tmp_path_factory.mktemp("triton"), repository) as server:
        yield server
