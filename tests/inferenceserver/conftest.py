"""Our own inference server for all tests of a file, which says with `repository` what is there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from mqinfer.stack import InferenceServer
from tests.support.triton import serving


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ours(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[InferenceServer]:
    async with serving(tmp_path_factory.mktemp("ours"), repository, InferenceServer) as server:
        yield server
