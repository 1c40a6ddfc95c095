"""Threads: where plain `def` handlers run, so that OpenCV work does not stop the event loop.

`ThreadPoolExecutor` is no fit: a handler that hangs for ever would keep its slot, starve the
messages behind it, and keep the process from ending. Here a call whose caller gave up leaves its
thread behind and a new one takes its place; all threads are daemons.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

# So many hung threads, times the pool's size, and the worker is better started anew.
ABANDONED_FACTOR = 4


class _Call:
    __slots__ = ("abandoned", "arguments", "context", "function", "future", "loop", "running")

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: Sequence[Any],
        loop: asyncio.AbstractEventLoop,
    ):
        self.function = function
        self.arguments = arguments
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.context = contextvars.copy_context()
        self.running = False
        self.abandoned = False


class Threads:
    """A fixed number of threads; calls wait for one in order.

    Args:
        size: threads that work at once.
        name: prefix of the threads' names.
    """

    def __init__(self, size: int, name: str):
        self.size = size
        self.abandoned = 0
        self._name = name
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._started = 0

    async def call(self, function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
        """Run `function(*arguments)` in a thread, with the caller's context variables.

        Cancelling the caller abandons the call: if it runs already its thread is left behind.
        """
        if self._started < self.size:
            self._start()
        call = _Call(function, arguments, asyncio.get_running_loop())
        self._calls.put(call)
        try:
            return await call.future
        except asyncio.CancelledError:
            with self._lock:
                call.abandoned = True
                running = call.running
                self.abandoned += running
            if running:
                self._start()
            raise

    @property
    def exhausted(self) -> bool:
        """Whether so many threads hang that only a new process helps."""
        return self.abandoned >= ABANDONED_FACTOR * self.size

    def _start(self) -> None:
        self._started += 1
        threading.Thread(
            target=self._work, name=f"{self._name}-{self._started}", daemon=True
        ).start()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            with self._lock:
                if call.abandoned:
                    continue
                call.running = True
            result: Any = None
            error: BaseException | None = None
            try:
                result = call.context.run(call.function, *call.arguments)
            except BaseException as problem:  # noqa: BLE001 - carried to the caller
                error = problem
            with self._lock:
                call.running = False
                if call.abandoned:
                    self.abandoned -= 1
                    return  # another thread has taken this one's place
            try:
                call.loop.call_soon_threadsafe(_deliver, call.future, result, error)
            except RuntimeError:
                return  # the loop is closed: nobody waits
            del call, result, error

    def close(self) -> None:
        """Let idle threads end."""
        for _ in range(self._started):
            self._calls.put(None)


def _deliver(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if isinstance(error, StopIteration):
        error = RuntimeError("the handler raised StopIteration")  # a future refuses that one
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
