"""Streaming: calls of models that answer an item with any number of parts (decoupled ones).

Such a call stands in the queue of its model as any other. It has a request of its own, and holds a
slot until its last part came; a caller that takes its parts slowly holds up its model, and nothing
gathers here. What a caller was given cannot be taken back: when the server or the model goes down
before the first part, the call waits and is sent again, as any; when they do so later, its caller
gets `Unavailable`, and its message comes again without an attempt spent.

Triton tells a stream nothing when the model's process dies (24.10): only the next request hears of
it. So that there is one where all slots are held by streams, one more may go while all are silent.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import aclosing
from typing import TYPE_CHECKING

from mqinfer.context import Context
from mqinfer.errors import Unavailable
from mqinfer.inference import tensors
from mqinfer.inference.calls import Call
from mqinfer.model import Answer
from mqinfer.ports import ModelInfo, ModelReply

if TYPE_CHECKING:
    from mqinfer.model import Array

# Seconds without a part after which a stream is silent.
SILENT = 3.0
# Parts that are held for a caller which is slower than its model.
_PARTS = 16


def take_stream(model: str) -> str:
    """Why a call that wants one answer is refused, and what to do."""
    return (
        f"model {model} is decoupled: it answers an item with any number of parts. Take them as "
        "they come, `async for part in model.stream(...)`, or all of them, "
        "`[part async for part in model.stream(...)]`"
    )


class StreamCall(Call):
    """One caller that takes the parts of one item; its future is done with the last part."""

    __slots__ = ("_came", "_parts", "_probes", "_taken", "listens_since")

    def __init__(
        self,
        info: ModelInfo,
        inputs: dict[str, Array],
        context: Context | None,
        bulk: bool = False,
        caller: Hashable = None,
    ):
        super().__init__(info, inputs, context, bulk, caller)
        self._parts: deque[Answer] = deque()
        self._came = asyncio.Event()
        self._taken = asyncio.Event()
        # Whether it was sent while all others were silent.
        self._probes = False
        # Since when the model is waited for; infinite while the caller is.
        self.listens_since = math.inf
        self.future.add_done_callback(lambda _: self._came.set())

    async def relay(
        self,
        replies: AsyncGenerator[ModelReply],
        clock: Callable[[], float],
        begun: Callable[[], None],
    ) -> str:
        """Give the caller what comes, until the last; waits while the caller has too many parts.

        Args:
            replies: of the model; closed at the end.
            clock: of the other calls.
            begun: is called with the first of them.

        Returns:
            The version that answered; "" if nothing came.
        """
        version = ""
        async with aclosing(replies):
            async for reply in replies:
                self.listens_since = math.inf
                if not self.given:
                    begun()
                version = reply.version
                outputs = tensors.part(self.info, reply)
                self._parts.append(Answer(outputs, model=self.info.name, version=version))
                self.given += 1
                self._came.set()
                while len(self._parts) >= _PARTS:
                    self._taken.clear()
                    await self._taken.wait()
                self.listens_since = clock()
        return version

    async def parts(self) -> AsyncGenerator[Answer]:
        """The parts as they come.

        Raises:
            MqinferError: why there are no more.
        """
        while True:
            if self._parts:
                part = self._parts.popleft()
                self._taken.set()
                yield part
            elif self.future.done():
                self.future.result()
                return
            else:
                self._came.clear()
                await self._came.wait()

    def leave(self) -> bool:
        """The caller takes no more; whether that was before the end."""
        if self.future.cancel():
            return True
        if not self.future.cancelled():
            self.future.exception()  # nobody is to be told that it was not looked at
        return False

    @property
    def innocent(self) -> bool:  # type: ignore[override]
        """Whether it only found what another had brought down."""
        return self._probes and not self.given

    def sent(self, now: float, *, probes: bool) -> None:
        """Its request begins.

        Args:
            now: by the clock of the other calls.
            probes: whether all others are silent.
        """
        self.listens_since = now
        self._probes = probes

    def broke_off(self, error: Unavailable) -> None:
        """No answer came, or no more: where parts were given there is no beginning again."""
        if self.given:
            text = f"its answer broke off after {self.given} parts: {error}"
            self.fail(Unavailable(f"model {self.info.name}: {text}"))


class UnderWay:
    """The streams under way of one model, and whether all of them are silent.

    Args:
        clock: monotonic seconds.
        changed: is called when they fell silent.
    """

    def __init__(self, clock: Callable[[], float], changed: Callable[[], None]):
        self._clock = clock
        self._changed = changed
        self._calls: set[StreamCall] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def silent(self) -> bool:
        """Whether there are some, and from none came a part for a while."""
        if not self._calls:
            return False
        return max(call.listens_since for call in self._calls) <= self._clock() - SILENT

    def begin(self, call: StreamCall) -> None:
        """It is sent."""
        call.sent(self._clock(), probes=self.silent)
        self._calls.add(call)
        if self._timer is None:
            self._look_later()

    def end(self, call: StreamCall) -> None:
        """It is over."""
        self._calls.discard(call)
        if self._timer is not None and not self._calls:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._look_later()
        if self.silent:
            self._changed()

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(SILENT, self._look)
