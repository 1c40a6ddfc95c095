"""Publish one message and wait until it is stored."""

from __future__ import annotations

import asyncio
from typing import Protocol

from mqinfer.ports import PublishDone


class Publishes(Protocol):
    """The part of a `Broker` that publishes."""

    def publish(
        self,
        subject: str | bytes,
        header: bytes,
        payload: bytes,
        done: PublishDone,
        *,
        timeout: float | None = None,
    ) -> None:
        """Publish; see `Broker.publish`."""


async def publish_stored(
    broker: Publishes,
    subject: str | bytes,
    header: bytes,
    payload: bytes,
    *,
    timeout: float | None = None,
) -> bool:
    """Return once the message is stored: True if the stream had it already.

    Raises:
        PublishError: it was refused, or `timeout` seconds have passed.
    """
    stored: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def done(error: Exception | None, repeat: bool) -> None:
        if stored.done():
            return  # the caller gave up
        if error is None:
            stored.set_result(repeat)
        else:
            stored.set_exception(error)

    broker.publish(subject, header, payload, done, timeout=timeout)
    return await stored
