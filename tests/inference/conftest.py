"""The server of `tests.support.inference`, and model calls on it."""

from collections.abc import AsyncIterator

import pytest

from mqinfer.inference.inference import Inference
from tests.support.inference import Server, inference_on


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def inference(server: Server) -> AsyncIterator[Inference]:
    """With one slot, so that what gathers is known."""
    async with inference_on(server) as inference:
        yield inference
