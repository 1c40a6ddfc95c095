"""Link: the one inference server as all models share it: is it up, who owns the tasks, who waits.

Keeps the part of promise 3 that an outage is waited out: whoever finds the server silent reports it
here; it is probed until it answers, and then everybody is told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AbstractContextManager, nullcontext
from contextvars import Context as Variables

import structlog

from mqinfer.backoff import Attempts, Backoff
from mqinfer.errors import MqinferError, NotConnected, Unavailable
from mqinfer.flow.availability import Availability
from mqinfer.inference.watch import Watch
from mqinfer.ports import InferenceServer, ModelInfo
from mqinfer.tracing.spans import Attributes, Span, Tracing

log = structlog.get_logger("mqinfer.inference")

# A probe that hangs is no answer; an adapter's own timeouts are shorter.
_PROBE_SECONDS = 10.0
# Some models take minutes to load.
_LOAD_SECONDS = 900.0
# Short, since work is to go on within two seconds of a server's return.
PROBES = Backoff(initial=0.1, maximum=1.0)
_UNTRACED = nullcontext()


class Link:
    """The server, its availability, and the tasks that work on it.

    Args:
        server: the adapter.
        clock: monotonic seconds.
        tracing: makes spans of requests; None makes none.

    Attributes:
        watch: runs the requests.
        listeners: called when the server went down or came back.
        returns: how often the server came back after an outage.
        crashed: set when a task of ours died; `crash` says of what.
    """

    def __init__(
        self,
        server: InferenceServer,
        *,
        clock: Callable[[], float] = time.monotonic,
        tracing: Tracing | None = None,
    ):
        self.server = server
        self.clock = clock
        self.tracing = tracing
        self.availability = Availability("triton", clock)
        self.attempts = Attempts(PROBES)
        self.listeners: list[Callable[[], None]] = []
        self.returns = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self.closed = False
        self.crash: BaseException | None = None
        self.crashed = asyncio.Event()
        self.watch = Watch(server, self.describe, self.spawn)
        self._recovery: asyncio.Task[None] | None = None

    def together(self, model: str, spans: Iterable[Span | None]) -> AbstractContextManager[object]:
        """The span of a request, of calls that may be traced."""
        if self.tracing is None:
            return _UNTRACED
        found = [span for span in spans if span is not None]
        if not found:
            return _UNTRACED
        told: Attributes = {"mqinfer.model": model, "mqinfer.items": len(found)}
        return self.tracing.together(f"request {model}", "client", found, told)

    def require_open(self) -> None:
        """Refuse what cannot be done any more.

        Raises:
            NotConnected: this was closed, or a task of it died.
        """
        if self.crash is not None:
            raise NotConnected(f"model calls ended, since mqinfer failed inside: {self.crash!r}")
        if self.closed:
            raise NotConnected(
                "model calls ended: call models while the worker runs, "
                "or inside `async with mqinfer.connect(app)`"
            )

    def spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Start a task that is owned here and ends with `close`."""
        # Variables of its own: the work is that of many messages, or of none.
        task = asyncio.get_running_loop().create_task(work, name=name, context=Variables())
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def down(self, reason: str) -> None:
        """The server does not answer: tell everybody and probe until it does."""
        if self.availability.reason is None:
            log.warning("triton is down", reason=reason)
        self.availability.down(reason)
        if self._recovery is None and not self.closed:
            self._recovery = self.spawn(self._recover(), "triton probe")
        self._tell()

    async def describe(self, model: str, version: str | None) -> ModelInfo:
        """A model's metadata, in bounded time.

        Raises:
            ModelUnavailable: not served, not loaded, or its version is not there.
            Unavailable: the server does not answer.
            MqinferError: its metadata cannot be used.
        """
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                return await self.server.describe(model, version)
        except TimeoutError:
            raise Unavailable(f"no metadata of {model} within {_PROBE_SECONDS:g} s") from None

    async def reload(self, model: str) -> None:
        """Have a model loaded anew whose process died, in bounded time.

        Raises:
            ConfigurationError: the server does not allow it.
            MqinferError: it does not load, or the server does not answer.
        """
        try:
            async with asyncio.timeout(_LOAD_SECONDS):
                await self.server.reload(model)
        except TimeoutError:
            raise Unavailable(f"{model} was not loaded within {_LOAD_SECONDS:g} s") from None

    async def close(self) -> None:
        """End every task."""
        self.closed = True
        self.watch.close()
        tasks = tuple(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # From Python 3.12 on that does not wait for one which has ended, and is not yet heard of.
        self.tasks.difference_update(tasks)

    def __repr__(self) -> str:
        return f"Link({self.availability!r}, tasks={len(self.tasks)})"

    async def _recover(self) -> None:
        while self.availability.reason is not None:
            # Outside of the probe's time: the first wait is none, the longest a second.
            await asyncio.sleep(self.attempts.next())
            try:
                async with asyncio.timeout(_PROBE_SECONDS):
                    await self.server.ready()
            except MqinferError as error:
                self.availability.down(str(error))
            except TimeoutError:
                self.availability.down(f"it does not say whether it is ready in {_PROBE_SECONDS} s")
            else:
                log.info("triton is back", after=self.clock() - self.availability.since)
                self.returns += 1
                self.availability.up()
        self._recovery = None
        self._tell()

    def _tell(self) -> None:
        for listener in self.listeners:
            listener()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of inference died", task=task.get_name(), exc_info=error)
            self.crash = error
            self.crashed.set()
            self._tell()
