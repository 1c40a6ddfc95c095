"""Timed: handlers and model calls that say where their time goes.

A handler on the event loop is stepped, and each step's processor time is added up: what it computes
itself, beside what it waits for. Only the bench pays for that; a worker runs handlers as they are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mqinfer.context import current

if TYPE_CHECKING:
    from mqinfer.model import Answer, Array, Model
    from mqinfer.stage import Stage


class Times:
    """Sums of one stage; seconds.

    Attributes:
        own: processor time of its handler's code on the event loop.
        threads: processor time of its handler's code in threads.
        wall: from the beginning of handlers to their end.
        models: that handlers waited for each model.
        calls: of each model.
    """

    __slots__ = ("_lock", "calls", "models", "own", "threads", "wall")

    def __init__(self) -> None:
        self.own = self.threads = self.wall = 0.0
        self.models: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self._lock = threading.Lock()

    def thread(self, seconds: float, wall: float) -> None:
        """A handler ended in a thread."""
        with self._lock:
            self.threads += seconds
            self.wall += wall

    def model(self, name: str, seconds: float) -> None:
        """A model answered."""
        self.models[name] = self.models.get(name, 0.0) + seconds
        self.calls[name] = self.calls.get(name, 0) + 1


def timed_stage(stage: Stage, times: Times) -> Stage:
    """The stage with a handler that is timed; it begins at the oldest message."""
    wrap = {
        "coroutine": _coroutine,
        "async_generator": _async_generator,
        "function": _function,
        "generator": _generator,
    }[stage.signature.kind]
    return replace(stage, handler=wrap(stage.handler, times), start=None)


class TimedInference:
    """The inference of a worker, each of whose calls counts for the stage that makes it."""

    def __init__(self, inference: Any, times: Mapping[str, Times]):
        self._inference = inference
        self._times = times

    async def ask(self, model: Model, inputs: Mapping[str, Array]) -> Answer:
        """Run one item."""
        began = time.perf_counter()
        try:
            return await self._inference.ask(model, inputs)  # type: ignore[no-any-return]
        finally:
            self._count(model, began)

    async def stream(self, model: Model, inputs: Mapping[str, Array]) -> AsyncIterator[Answer]:
        """Run one item that is answered in parts; what the handler does meanwhile counts, too."""
        began = time.perf_counter()
        try:
            async for part in self._inference.stream(model, inputs):
                yield part
        finally:
            self._count(model, began)

    def _count(self, model: Model, began: float) -> None:
        context = current.get()
        if context is not None and context.stage in self._times:
            self._times[context.stage].model(model.name, time.perf_counter() - began)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inference, name)


class _Steps:
    """An awaitable, run step by step."""

    def __init__(self, steps: Any, times: Times):
        self._steps = steps
        self._times = times

    def __await__(self) -> Generator[Any, Any, Any]:
        steps, times = self._steps, self._times
        error: BaseException | None = None
        value: Any = None
        while True:
            began = time.thread_time()
            try:
                waits_for = steps.send(value) if error is None else steps.throw(error)
            except StopIteration as done:
                return done.value
            finally:
                times.own += time.thread_time() - began
            error = None
            try:
                value = yield waits_for
            except GeneratorExit:
                steps.close()
                raise
            except BaseException as thrown:  # noqa: BLE001 - it is the handler's
                error = thrown


def _coroutine(handler: Callable[..., Any], times: Times) -> Callable[..., Any]:
    async def timed(*arguments: Any) -> Any:
        began = time.perf_counter()
        try:
            return await _Steps(handler(*arguments), times)
        finally:
            times.wall += time.perf_counter() - began

    return timed


def _async_generator(handler: Callable[..., Any], times: Times) -> Callable[..., Any]:
    async def timed(*arguments: Any) -> AsyncIterator[Any]:
        began = time.perf_counter()
        outputs = handler(*arguments)
        try:
            while True:
                try:
                    output = await _Steps(outputs.__anext__(), times)
                except StopAsyncIteration:
                    return
                yield output
        finally:
            await outputs.aclose()
            times.wall += time.perf_counter() - began

    return timed


def _function(handler: Callable[..., Any], times: Times) -> Callable[..., Any]:
    def timed(*arguments: Any) -> Any:
        began, used = time.perf_counter(), time.thread_time()
        try:
            return handler(*arguments)
        finally:
            times.thread(time.thread_time() - used, time.perf_counter() - began)

    return timed


def _generator(handler: Callable[..., Any], times: Times) -> Callable[..., Any]:
    def timed(*arguments: Any) -> Iterator[Any]:
        began, used = time.perf_counter(), time.thread_time()
        try:
            yield from handler(*arguments)
        finally:
            times.thread(time.thread_time() - used, time.perf_counter() - began)

    return timed
