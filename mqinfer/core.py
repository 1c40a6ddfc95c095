"""Core: what NATS does without a stream; `adapters.core` does it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

# Subject, payload and header block of something that was said.
Heard = Callable[[str, bytes, bytes], None]


class Core(Protocol):
    """What NATS does without a stream: whoever listens hears it, and nobody else ever does."""

    def listen(
        self, subject: str, heard: Heard, again: Callable[[], None] | None = None
    ) -> AbstractAsyncContextManager[None]:
        """Listen while inside; also again after a reconnection, without what came meanwhile.

        Args:
            subject: with wildcards.
            heard: called on the event loop; must not raise or block.
            again: called after a reconnection, in the same way.

        Raises:
            Unavailable: the connection is closed.
        """

    def say(self, subject: str, payload: bytes = b"") -> None:
        """Say something; it may get lost."""

    def answering(
        self, subject: str, asked: Callable[[str, bytes], None], *, queue: str = ""
    ) -> AbstractAsyncContextManager[None]:
        """Answer what is asked while inside, by `say` to where the answer is wanted.

        Args:
            subject: with wildcards.
            asked: called on the event loop with where the answer is wanted, and what is asked; must
                not raise or block.
            queue: those of one name share what is asked: each is asked some of it.

        Raises:
            Unavailable: the connection is closed.
        """

    async def ask(self, subject: str, payload: bytes, timeout: float) -> bytes | None:
        """Ask one of those who answer; None: nobody does.

        Raises:
            PayloadTooLarge: it exceeds the server's limit.
            Unavailable: no answer in so many seconds.
        """

    async def ask_all(self, subject: str, payload: bytes, seconds: float) -> list[bytes]:
        """Ask all who answer: what was answered within so many seconds."""
