"""Core NATS: what is said to those who listen now, and kept nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from mqinfer.adapters.natspy import nats
from mqinfer.errors import PayloadTooLarge, Unavailable

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

    @asynccontextmanager
    async def answering(
        self, subject: str, asked: Callable[[str, bytes], None], *, queue: str = ""
    ) -> AsyncIterator[None]:
        """Answer while inside; see `Core.answering`."""

        def raw(_: bytes, reply: bytes, data: bytes, _header: bytes | None) -> None:
            if reply:
                asked(reply.decode(), data)

        if self._client.is_closed:
            raise Unavailable("the connection to NATS is closed for good")
        subscription = await self._client.subscribe_direct(subject, raw, queue)
        with suppress(nats.errors.Error, OSError, TimeoutError):
            await self._client.flush()  # from here on the server knows
        try:
            yield
        finally:
            # What is on its way has nobody else who would answer.
            self._client.end_interest(subscription)
            with suppress(nats.errors.Error, OSError, TimeoutError):
                await self._client.flush()
            await self._client.unsubscribe_direct(subscription)

    async def ask(self, subject: str, payload: bytes, timeout: float) -> bytes | None:
        """Ask one of those who answer; see `Core.ask`."""
        try:
            answer = await self._client.request(subject, payload, timeout=timeout)
        except nats.errors.NoRespondersError:
            return None
        except nats.errors.MaxPayloadError:
            raise PayloadTooLarge(f"{len(payload):,} bytes are more than NATS takes") from None
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise Unavailable(f"no answer from {subject} in {timeout:g} s: {error}") from None
        return bytes(answer.data)

    async def ask_all(self, subject: str, payload: bytes, seconds: float) -> list[bytes]:
        """Ask all who answer; see `Core.ask_all`."""
        inbox, found = self._client.new_inbox(), list[bytes]()

        def raw(_: bytes, _reply: bytes, data: bytes, header: bytes | None) -> None:
            if header is None:  # else nobody is there, says the server
                found.append(data)

        subscription = await self._client.subscribe_direct(inbox, raw)
        try:
            self._client.write(
                b"PUB %b %b %d\r\n%b\r\n"
                % (subject.encode(), inbox.encode(), len(payload), payload)
            )
            await asyncio.sleep(seconds)
        finally:
            await self._client.unsubscribe_direct(subscription)
        return found
