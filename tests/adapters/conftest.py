"""What several files share: a client of the module's `triton` and its calls, and an S3 server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from mqinfer.adapters.triton import TritonClient
from mqinfer.inference.inference import Inference
from mqinfer.stack import TritonServer
from tests.support.s3 import bucket, s3_endpoint

__all__ = ["bucket", "s3_endpoint"]


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
