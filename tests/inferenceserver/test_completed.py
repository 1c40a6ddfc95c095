"""Folders with nothing but `1/model.onnx`, on our own server: what the embedded Triton does."""

from collections.abc import AsyncIterator

import pytest

from mqinfer.adapters.triton import TritonClient
from mqinfer.stack import InferenceServer
from tests.stack.test_onnxconfig import (
    repository,
    test_folders_without_a_configuration_answer,
    test_the_index_says_why_a_model_did_not_load,
)

__all__ = [
    "repository",
    "test_folders_without_a_configuration_answer",
    "test_the_index_says_why_a_model_did_not_load",
]


@pytest.fixture
def triton(ours: InferenceServer) -> InferenceServer:
    return ours


@pytest.fixture
async def client(ours: InferenceServer) -> AsyncIterator[TritonClient]:
    client = TritonClient(ours.url)
    yield client
    await client.close()
