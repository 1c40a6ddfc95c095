"""Confirmer: whether the server has read how deliveries ended.

An acknowledgement has no answer unless one is asked for, which would cost a message each. But a
server reads what a connection says in turn: its answer to a ping tells that all before was read.
So one ping confirms whatever was said since the last. What a lost connection may have taken with
it is said again, as an acknowledgement: that ends a delivery whichever way it had ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from mqinfer.errors import MqinferError

RETRY = 0.1  # seconds between pings that are not answered


class Confirmer:
    """The ends of deliveries that the server may not have read yet.

    Args:
        flush: returns when the server has read all that was said before, or raises MqinferError.
        again: acknowledges a delivery by its reply subject.
    """

    def __init__(self, flush: Callable[[], Awaitable[None]], again: Callable[[bytes], None]):
        self._flush = flush
        self._again = again
        self._said: list[tuple[bytes, Callable[[], None]]] = []
        self._losses = 0
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def confirm(self, reply: bytes, done: Callable[[], None]) -> None:
        """Call `done` when the server has read the end of the delivery of this reply subject."""
        self._said.append((reply, done))
        if self._task is None:
            self._task = asyncio.create_task(self._confirm(), name="confirm")

    def lost(self) -> None:
        """A connection was lost, or made anew."""
        self._losses += 1
        self._lost.set()

    async def _confirm(self) -> None:
        try:
            while self._said:
                said, self._said = self._said, []
                while not await self._read():
                    await asyncio.sleep(RETRY)
                    for reply, _ in said:
                        self._again(reply)
                for _, done in said:
                    done()
        finally:
            self._task = None

    async def _read(self) -> bool:
        """Whether all that was said was read, by one connection."""
        losses = self._losses
        self._lost.clear()
        # Never cancelled: nats-py would stumble over the answer to a ping that nobody awaits.
        asking = asyncio.ensure_future(self._flush())
        waiting = asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait({asking, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if not asking.done():
            asking.add_done_callback(_heed)
            return False
        return _heed(asking) and losses == self._losses

    def close(self) -> None:
        """Confirm nothing any more."""
        self._said.clear()
        if self._task is not None:
            self._task.cancel()

    def __repr__(self) -> str:
        return f"Confirmer({len(self._said)} to confirm)"


def _heed(asking: asyncio.Future[None]) -> bool:
    """Whether a ping was answered."""
    if asking.cancelled():
        return False
    error = asking.exception()
    if error is not None and not isinstance(error, MqinferError):
        raise error
    return error is None
