"""Line: a second connection to NATS, which renews deliveries from another event loop.

It is opened while the first one's loop stands still, with the same address and credentials, and has
an inbox for the server's confirmations and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from types import TracebackType
from typing import TYPE_CHECKING

from mqinfer.adapters.firstconnection import open_client

if TYPE_CHECKING:
    from mqinfer.settings import Settings


class Line:
    """One connection; an async context manager.

    Args:
        settings: addresses and credentials.
        name: of the connection.
    """

    def __init__(self, settings: Settings, name: str):
        self._settings = settings
        self._name = name
        self._number = 0
        self._waiting: dict[int, bytes] = {}
        self._confirmed: set[bytes] = set()
        self._answered = asyncio.Event()

    async def __aenter__(self) -> Line:
        """Connect; see `Lines.line`."""
        self._client = await open_client(
            self._settings,
            name=self._name,
            on_disconnect=_nothing,
            on_reconnect=_nothing,
            on_closed=_nothing,
            on_denied=lambda _text: None,
        )
        inbox = self._client.new_inbox()
        self._inbox = inbox.encode() + b"."
        await self._client.subscribe_direct(f"{inbox}.*", self._on_answer)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connection."""
        await self._client.close()

    async def renew(self, replies: Collection[bytes], timeout: float) -> set[bytes]:
        """Renew; see `worker.renewals.Line`."""
        # Without a connection nothing is kept for later: by then it would be too late.
        if not self._client.is_connected:
            return set()
        self._answered.clear()
        self._confirmed = set()
        self._waiting = dict(enumerate(replies, self._number))
        self._number += len(replies)
        for number, reply in self._waiting.items():
            self._client.write(b"PUB %b %b%d 4\r\n+WPI\r\n" % (reply, self._inbox, number))
        try:
            async with asyncio.timeout(timeout):
                await self._answered.wait()
        except TimeoutError:
            pass
        return self._confirmed

    def _on_answer(
        self, subject: bytes, _reply: bytes, _data: bytes, headers: bytes | None
    ) -> None:
        reply = self._waiting.pop(int(subject[len(self._inbox) :]), None)
        if reply is not None and headers is None:  # a status says that nobody listens
            self._confirmed.add(reply)
        if not self._waiting:
            self._answered.set()


def _nothing() -> None:
    """The client connects again by itself."""
