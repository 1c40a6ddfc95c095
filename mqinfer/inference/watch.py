"""Watch: tells a request that is slow from a server that is gone.

A request may take as long as its callers wait: no time of ours ends it. What ends it is a server
that falls silent. While a request is under way for long, the server is asked about the model, on
the same connection; as long as it answers, the model is slow. The questions also keep pings
allowed, with which gRPC notices a connection that is dead: servers close those that ping without
any data.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

from mqinfer.errors import ModelUnavailable, MqinferError, Unavailable
from mqinfer.ports import InferenceServer, ModelInfo, ModelReply

if TYPE_CHECKING:
    from mqinfer.model import Array

T = TypeVar("T")

# Seconds a request is under way before the server is asked, and between two questions.
EVERY = 3.0
# So many questions without an answer, one after the other, mean that the server is gone: one may be
# late on a busy machine.
SILENT = 3


class Watch:
    """The requests under way on one server.

    Args:
        server: the adapter.
        describe: asks for a model's metadata, in bounded time.
        spawn: starts a task that its owner ends.
        every: seconds between two questions.
    """

    def __init__(
        self,
        server: InferenceServer,
        describe: Callable[[str, str | None], Coroutine[None, None, ModelInfo]],
        spawn: Callable[[Coroutine[None, None, None], str], object],
        *,
        every: float = EVERY,
    ):
        self._server = server
        self._describe = describe
        self._spawn = spawn
        self._every = every
        # What ends each, with its beginning by the loop's clock and what it asks; the oldest first.
        self._requests: dict[asyncio.Timeout, tuple[float, str, str | None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._asking = False
        self._unanswered = 0
        self._reason = ""

    async def infer(
        self, model: str, version: str | None, inputs: Mapping[str, Array]
    ) -> ModelReply:
        """Run a request, for as long as the server shows signs of life.

        Raises:
            ModelError: as `InferenceServer.infer`; so for the others.
            ModelUnavailable: the model is not ready.
            Unavailable: the server does not answer, or fell silent.
        """
        return await self._over(
            model, version, self._server.infer(model, version, inputs, timeout=None)
        )

    async def stream(
        self, model: str, version: str | None, inputs: Mapping[str, Array]
    ) -> AsyncGenerator[ModelReply]:
        """Run a request with any number of replies, each awaited as the answer of `infer`."""
        async with aclosing(self._server.stream(model, version, inputs)) as replies:
            while (reply := await self._over(model, version, anext(replies, None))) is not None:
                yield reply

    async def _over(self, model: str, version: str | None, answer: Awaitable[T]) -> T:
        """Wait for an answer, for as long as the server shows signs of life."""
        loop = asyncio.get_running_loop()
        end = asyncio.timeout(None)
        try:
            async with end:
                self._requests[end] = (loop.time(), model, version)
                if self._timer is None:
                    self._timer = loop.call_later(self._every, self._look)
                return await answer
        except TimeoutError:
            if not end.expired():
                raise
            raise Unavailable(
                f"while a request was under way the server fell silent: {self._reason}"
            ) from None
        finally:
            self._requests.pop(end, None)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        if not self._requests:
            return
        loop = asyncio.get_running_loop()
        began, model, version = next(iter(self._requests.values()))
        if not self._asking and loop.time() - began >= self._every:
            self._asking = True
            self._spawn(self._ask(model, version), "triton watch")
        self._timer = loop.call_later(self._every, self._look)

    async def _ask(self, model: str, version: str | None) -> None:
        """Ask once; the requests end when this was for nothing too often."""
        try:
            await self._describe(model, version)
        except MqinferError as error:
            # What it says of the model is an answer of the server, too.
            if isinstance(error, Unavailable) and not isinstance(error, ModelUnavailable):
                self._unanswered += 1
                self._reason = str(error)
            else:
                self._unanswered = 0
        else:
            self._unanswered = 0
        finally:
            self._asking = False
        if self._unanswered >= SILENT:
            self._unanswered = 0
            now = asyncio.get_running_loop().time()
            for end in self._requests:
                end.reschedule(now)
            self._requests.clear()
