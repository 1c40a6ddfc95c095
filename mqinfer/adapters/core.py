"""Core NATS: what is said to those who listen now, and kept nowhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from mqinfer.errors import Unavailable

if TYPE_CHECKING:
    from mqinfer.adapters.natsclient import LeanClient
    from mqinfer.ports import Heard


class CoreNats:
    """`Core` over one connection.

    Args:
        client: an open connection.
    """

    def __init__(self, client: LeanClient):
        self._client = client

    @asynccontextmanager
    async def listen(
        self, subject: str, heard: Heard, again: Callable[[], None] | None = None
    ) -> AsyncIterator[None]:
        """Listen while inside; see `Core.listen`."""

        def raw(where: bytes, _reply: bytes, data: bytes, header: bytes | None) -> None:
            heard(where.decode(), data, header or b"")

        if self._client.is_closed:
            raise Unavailable("the connection to NATS is closed for good")
        subscription = await self._client.subscribe_direct(subject, raw)
        if again is not None:
            self._client.renewed.add(again)
        try:
            yield
        finally:
            if again is not None:
                self._client.renewed.discard(again)
            await self._client.unsubscribe_direct(subscription)

    def say(self, subject: str, payload: bytes = b"") -> None:
        """Say something; see `Core.say`."""
        self._client.write(b"PUB %b %d\r\n%b\r\n" % (subject.encode(), len(payload), payload))
