"""A process that dies at one of its steps: before it publishes, before it hears that something is
stored, before it acknowledges, or before or after it stores a blob.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

from mqinfer.adapters.blobstores.folder import FolderStore
from mqinfer.adapters.jetstream import JetStream


def at_each_step(step: Callable[[], None]) -> None:
    """Have `step` called at each step of this process."""
    publish, ack = JetStream.publish, JetStream.ack
    put, put_pieces = FolderStore.put, FolderStore.put_pieces

    def publish_one(
        self: JetStream, subject: Any, header: bytes, payload: bytes, done: Any, **options: Any
    ) -> None:
        def stored(error: Exception | None, repeat: bool) -> None:
            step()
            done(error, repeat)

        step()
        publish(self, subject, header, payload, stored, **options)

    def ack_one(self: JetStream, delivery: Any) -> None:
        step()
        ack(self, delivery)

    async def put_one(self: FolderStore, path: str, data: bytes) -> None:
        step()
        await put(self, path, data)
        step()

    async def put_some(self: FolderStore, path: str, pieces: AsyncIterator[bytes]) -> None:
        async def each() -> AsyncIterator[bytes]:
            async for piece in pieces:
                step()
                yield piece

        step()
        await put_pieces(self, path, each())
        step()

    JetStream.publish, JetStream.ack = publish_one, ack_one  # type: ignore[method-assign]
    FolderStore.put = put_one  # type: ignore[method-assign]
    FolderStore.put_pieces = put_some  # type: ignore[method-assign]


def dying(steps: int) -> None:
    """This process dies at its step number `steps`."""
    left = steps

    def step() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    at_each_step(step)
