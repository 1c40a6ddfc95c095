"""Early: outputs that leave while their handler still runs.

Whatever leaves early stays, also when the handler fails later; so it leaves only where that was
asked for (`@app.stage(early=True)`, `ctx.emit`), or where too much would have to be held. Its ids
are as fixed as those of other outputs: what a retry says again is a repeat, and is dropped as one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mqinfer.context import SENT
from mqinfer.flow.job import SETTLED, DeliveryContext

if TYPE_CHECKING:
    from mqinfer.flow.job import Job
    from mqinfer.flow.settler import Settler
    from mqinfer.message import Message

# Outputs of `ctx.emit` are numbered from here, those that are returned or yielded from 0: whatever
# of either an attempt leaves out, the others keep their ids.
EMITTED = 1 << 32


class Early:
    """What one handling of one message sends before it is done.

    Args:
        job: the message.
        settler: of its stage.
        size: outputs that are held while more are yielded.

    Attributes:
        first: the number of the next output that is yielded or returned.
        sent: outputs that left, in either way.
    """

    __slots__ = ("_done", "_emitted", "_job", "_loop", "_settler", "_size", "first", "sent")

    def __init__(self, job: Job, settler: Settler, size: int):
        self.first = 0
        self.sent = 0
        self._job = job
        self._settler = settler
        self._size = size
        self._emitted = 0
        self._done = False
        self._loop = asyncio.get_running_loop()
        if isinstance(job.context, DeliveryContext):
            job.context.early = self

    def close(self) -> None:
        """The handling is over: nothing may leave any more."""
        self._done = True
        if isinstance(self._job.context, DeliveryContext):
            self._job.context.early = None  # it would keep the message in memory, in a circle

    # --- one by one -----------------------------------------------------------------------------

    def emit(self, output: Message) -> Awaitable[None]:
        """Send an output now; see `Context.emit`."""
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if not here:
            self._wait(self._emit(output))
            return SENT
        emitter = self._settler.emitter
        if not emitter.plain:
            return self._emit(output)
        outputs = emitter.checked(output)
        self._send(outputs, self._number(outputs))
        return SENT

    async def _emit(self, output: Message) -> None:
        emitter = self._settler.emitter
        outputs = emitter.checked(output)
        first = self._number(outputs)  # before anything is awaited: in the order of the calls
        if not emitter.plain:
            await emitter.prepare(outputs)
        self._send(outputs, first)

    def _number(self, outputs: Sequence[Message]) -> int:
        first = EMITTED + self._emitted
        self._emitted += len(outputs)
        return first

    # --- what is yielded ------------------------------------------------------------------------

    async def drain(self, generator: Any) -> Sequence[Message]:
        """Take what an async generator yields; gives what has not left."""
        outputs: list[Message] = []
        try:
            async for output in generator:
                outputs.append(output)
                if len(outputs) == self._size:
                    await self._portion(outputs)
                    outputs = []
        finally:
            await generator.aclose()
        return self._settler.emitter.checked(outputs)

    def collect(self, items: Iterator[Any]) -> list[Any]:
        """Take what an iterator gives, in a thread, which waits for room; as `drain`."""
        outputs: list[Any] = []
        try:
            for output in items:
                outputs.append(output)
                if len(outputs) == self._size:
                    self._wait(self._portion(outputs))
                    outputs = []
        finally:
            if (close := getattr(items, "close", None)) is not None:
                close()
        return outputs

    async def _portion(self, outputs: list[Any]) -> None:
        emitter = self._settler.emitter
        checked = emitter.checked(outputs)
        if not emitter.plain:
            await emitter.prepare(checked)
        self._send(checked, self.first)
        self.first += len(checked)

    # --- sending --------------------------------------------------------------------------------

    def _send(self, outputs: Sequence[Message], first: int) -> None:
        if self._done or self._job.state is SETTLED:
            raise RuntimeError(
                "the handling of this message is over, so it can send no more: it returned, ran "
                "past its timeout, or its message is another worker's by now"
            )
        if self.sent == 0:
            self._job.unpublished += 1  # holds the job open; `answered` lets go
        self.sent += len(outputs)
        self._settler.emit_some(self._job, outputs, first)

    def _wait(self, sending: Coroutine[Any, Any, None]) -> None:
        """Run it on the loop from another thread, until it is done."""
        try:
            asyncio.run_coroutine_threadsafe(sending, self._loop).result()
        finally:
            sending.close()  # where the loop has ended it never began
