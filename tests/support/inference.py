"""An inference server made for tests, and what puts model calls on it; no Triton, no network."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any

import numpy as np

from mqinfer.errors import ConfigurationError, ModelError, ModelUnavailable, Unavailable
from mqinfer.inference.calls import ModelDied
from mqinfer.inference.inference import Inference
from mqinfer.inference.limits import AdaptiveLimit
from mqinfer.model import Answer
from mqinfer.ports import ModelInfo, ModelReply, TensorInfo

F32 = np.dtype(np.float32)
TEXT = np.dtype(object)
DOUBLE = ModelInfo(
    "double", ("1", "2"), (TensorInfo("x", F32, (-1,)),), (TensorInfo("y", F32, (-1,)),), 8
)
DETECTOR = ModelInfo(
    "leaf_detector",
    ("1",),
    (
        TensorInfo("image", np.dtype(np.uint8), (480, 640, 3)),
        TensorInfo("note", TEXT, (1,), optional=True),
    ),
    (TensorInfo("boxes", np.dtype(np.uint8), (480, 640, 3)),),
    4,
)
# Answers n with n parts, 0 to n - 1.
COUNT = ModelInfo(
    "count", ("1",), (TensorInfo("x", F32, (1,)),), (TensorInfo("y", F32, (1,)),), 8, decoupled=True
)
IMAGE = np.zeros((480, 640, 3), np.uint8)
BAD = -1.0
DEADLY = -2.0


class Server:
    """y = 2 x. An item of BAD is refused, one of DEADLY takes the server down for a moment.

    A stream goes on while `gate` is open, after each part; one that reached `breaks_after` parts
    ends in `fault`, and one of DEADLY kills a mortal model after its first part.
    """

    def __init__(self, *models: ModelInfo) -> None:
        self.models = {info.name: info for info in models or (DOUBLE,)}
        self.gate = asyncio.Event()
        self.gate.set()
        self.down: str | None = None
        self.gone: set[str] = set()
        self.requests: list[tuple[str, str | None, int]] = []
        self.values: list[list[float]] = []
        self.under_way = self.most_under_way = self.cancelled = self.described = self.probes = 0
        self.parts = 0
        self.spoil: Callable[[dict[str, Any]], dict[str, Any]] = lambda outputs: outputs
        self.fault: Exception | None = None
        self.mortal = self.dead = self.loads = False
        self.loaded = 0
        self.breaks_after = 1_000_000

    def _require(self, model: str, version: str | None) -> ModelInfo:
        if self.down is not None:
            raise Unavailable(self.down)
        info = self.models.get(model)
        if info is None or model in self.gone or version not in {None, *info.versions}:
            raise ModelUnavailable(f"{model} {version} is not there")
        return info

    async def describe(self, model: str, version: str | None = None) -> ModelInfo:
        self.described += 1
        await asyncio.sleep(0)
        return self._require(model, version)

    async def ready(self) -> None:
        self.probes += 1
        await asyncio.sleep(0)
        if self.down is not None:
            raise Unavailable(self.down)

    async def infer(
        self, model: str, version: str | None, inputs: Mapping[str, Any], *, timeout: float | None
    ) -> ModelReply:
        info = self._require(model, version)
        array = inputs[info.inputs[0].name]
        self.requests.append((model, version, len(array)))
        self.values.append(array.ravel().tolist())
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1
        info = self._require(model, version)
        if self.fault is not None:
            raise self.fault
        if array.dtype == F32 and (array == DEADLY).any():
            self.dead = self.mortal
            if not self.mortal:
                raise Unavailable("connection reset")
        if self.dead:
            raise ModelDied("its process is not healthy")
        if array.dtype == F32 and (array == BAD).any():
            raise ModelError("no item of this request may be negative")
        wanted = info.inputs[0]
        if array.dtype != wanted.dtype:
            raise ModelError(f"expected {wanted.dtype}")
        outputs = {info.outputs[0].name: array * 2 if array.dtype != TEXT else array}
        return ModelReply(self.spoil(outputs), version or info.versions[-1])

    async def stream(
        self, model: str, version: str | None, inputs: Mapping[str, Any]
    ) -> AsyncGenerator[ModelReply]:
        info = self._require(model, version)
        value = float(inputs["x"][0, 0])
        self.requests.append((model, version, len(inputs["x"])))
        self.values.append([value])
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if value == BAD:
                raise ModelError("no item may be negative")
            for part in range(2 if value == DEADLY else int(value)):
                if self.fault is not None and part == self.breaks_after:
                    raise self.fault
                self.dead = self.dead or (value == DEADLY and part > 0)
                self._require(model, version)
                if self.dead:
                    raise ModelDied("its process is not healthy")
                yield ModelReply({"y": np.full((1, 1), part, F32)}, info.versions[-1])
                self.parts += 1
                await self.gate.wait()
                await asyncio.sleep(0)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1

    async def reload(self, model: str) -> None:
        await asyncio.sleep(0)
        if not self.loads:
            raise ConfigurationError("loading is not allowed")
        self.loaded += 1
        self.dead = False

    async def close(self) -> None:
        pass


class Leaps:
    """A clock on which each look is a second later, to be quicker than the real one."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def slots(count: int) -> Callable[[], AdaptiveLimit]:
    return lambda: AdaptiveLimit(minimum=count, maximum=count, start=count)


def x(*values: float) -> np.ndarray[Any, Any]:
    return np.array(values, np.float32)


async def until(condition: Callable[[], object]) -> None:
    """Wait for a state; the bound is only for a test that fails."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - conditions are of all kinds
            await asyncio.sleep(0)


def ask(inference: Inference, *values: float, model: str = "double") -> list[asyncio.Task[Answer]]:
    return [
        asyncio.get_running_loop().create_task(inference(model, None, {"x": x(value)}))
        for value in values
    ]


@contextlib.asynccontextmanager
async def inference_on(server: Server, **options: Any) -> AsyncIterator[Inference]:
    async with Inference(server, **{"limit": slots(1), **options}) as inference:
        yield inference
        statistics = inference.statistics()
    # Nothing may be left behind, whatever happened.
    assert inference.statistics().tasks == 0
    for queue in statistics.queues:
        assert (queue.calls, queue.waiting_for_room) == (0, 0)
        assert queue.batcher.waiting == 0


async def hold(server: Server, inference: Inference, value: float = 0.0) -> asyncio.Task[Answer]:
    """Occupy the only slot with a request that does not end until the gate opens."""
    server.gate.clear()
    [first] = ask(inference, value)
    await until(lambda: server.under_way == 1)
    return first
