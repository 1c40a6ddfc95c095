"""A tiny model, y = 2 x + 1: calls that mqinfer gathers, and one call a message by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.grpc.aio import InferenceServerClient, InferInput

from mqinfer.adapters.triton import TritonClient
from mqinfer.inference.inference import Inference
from mqinfer.model import Model

NAME = "affine"
_CONFIG = f"""
name: "{NAME}"
backend: "onnxruntime"
max_batch_size: 64
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 1 ] }} ]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 1 ] }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
"""

Call = Callable[[float], Awaitable[float]]


def build_repository(folder: Path) -> None:
    """Write the model into a Triton model repository."""
    import onnx
    from onnx import TensorProto, helper

    def value(name: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1])

    def constant(name: str, number: float) -> Any:
        return helper.make_tensor(name, TensorProto.FLOAT, [1], [number])

    nodes = [
        helper.make_node("Mul", ["x", "two"], ["doubled"]),
        helper.make_node("Add", ["doubled", "one"], ["y"]),
    ]
    constants = [constant("two", 2.0), constant("one", 1.0)]
    graph = helper.make_graph(nodes, NAME, [value("x")], [value("y")], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    target = folder / NAME / "1" / "model.onnx"
    target.parent.mkdir(parents=True)
    onnx.save(model, target)
    (folder / NAME / "config.pbtxt").write_text(_CONFIG)


class Callers:
    """Both ways to call the model, open; an async context manager.

    Args:
        url: of Triton, `host:port`.
    """

    def __init__(self, url: str):
        self._url = url
        self._model = Model(NAME)

    async def __aenter__(self) -> Callers:
        self._direct = InferenceServerClient(self._url)
        self._server = TritonClient(self._url)
        self._inference = Inference(self._server)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._inference.close()
        await self._server.close()
        await self._direct.close()

    async def gathered(self, x: float) -> float:
        """By mqinfer."""
        answer = await self._inference.ask(self._model, {"x": np.array([x], np.float32)})
        return float(answer["y"][0])

    async def direct(self, x: float) -> float:
        """By Triton's client."""
        tensor = InferInput("x", [1, 1], "FP32")
        tensor.set_data_from_numpy(np.array([[x]], np.float32))
        answer = await self._direct.infer(NAME, [tensor], client_timeout=60)
        return float(answer.as_numpy("y")[0, 0])


async def rate(call: Call, count: int, in_flight: int) -> float:
    """Calls a second, so many in flight; each answer is checked."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            if await call(number) != 2 * number + 1:
                raise RuntimeError(f"a wrong answer for {number}")

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(work())
    return count / (time.perf_counter() - began)


async def lone(calls: list[Call], count: int) -> list[list[float]]:
    """Milliseconds of each of `count` calls that are alone, one way after the other in turns."""
    found: list[list[float]] = [[] for _ in calls]
    for number in range(count):
        for call, times in zip(calls, found, strict=True):
            began = time.perf_counter()
            await call(number)
            times.append(1e3 * (time.perf_counter() - began))
    return found
