"""Tokens: how a worker comes by tokens of partitions, and how workers share them."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from mqinfer.flow.ordered.share import Share

if TYPE_CHECKING:
    from mqinfer.flow.ordered.places import Places
    from mqinfer.ports import Broker, ConsumerSpec, ConsumerState, Delivery, Pull

WANTED = 1.5  # seconds that a worker is known to own too few partitions
TOKEN_BYTES = 64 * 1024


class Tokens:
    """The tokens of a stage, as one worker asks for them.

    Args:
        broker: the server.
        places: the consumers of the stage.
        expires: seconds that a request waits at most.
    """

    def __init__(self, broker: Broker, places: Places, expires: float):
        self._broker = broker
        self._places = places
        self._expires = expires
        self._share = Share(len(places.partitions))
        self._asked = 0
        self._pulls: tuple[Pull, Pull] | None = None
        self._present: Pull | None = None
        self._closed = False

    async def open(
        self, on_token: Callable[[Delivery], None], recreate: Callable[[], Awaitable[object]]
    ) -> None:
        """Begin; `on_token` is called with each token, `recreate` when a consumer is gone."""

        def arrived(delivery: Delivery) -> None:
            self._asked = max(0, self._asked - 1)
            on_token(delivery)

        def withdrawn(messages: int, _size: int) -> None:
            self._asked = max(0, self._asked - messages)

        self._recreate = recreate
        self._pulls = (
            await self._pull(self._places.tokens, self._expires, arrived, withdrawn),
            await self._pull(self._places.wanting, WANTED),  # nothing ever comes by it
        )

    async def _pull(
        self,
        spec: ConsumerSpec,
        expires: float | None,
        on_message: Callable[[Delivery], None] = lambda _: None,
        on_released: Callable[[int, int], None] = lambda _messages, _size: None,
    ) -> Pull:
        return await self._broker.pull(
            spec.stream,
            spec.name,
            on_message=on_message,
            on_released=on_released,
            recreate=self._recreate,
            expires=expires,
        )

    async def look(self, owned: int) -> int:
        """Ask for tokens as far as others leave them, and be seen by these.

        Args:
            owned: partitions that this worker owns.

        Returns:
            Partitions to give away.

        Raises:
            Unavailable: the server does not answer.
        """
        if self._pulls is None or self._closed:
            return 0
        tokens, wanting = self._pulls
        await self._be_present()
        workers = await self._state(self._places.present)
        others = await self._state(self._places.wanting)
        if workers is None or others is None or self._closed:
            return 0
        share = self._share
        share.seen(workers.requests, others.requests - wanting.requests)
        if share.wants(owned) and not wanting.requests:
            wanting.request(1, TOKEN_BYTES)
        more = share.more(owned)
        if more and not self._asked and not tokens.paused:
            self._asked = more
            tokens.request(more, more * TOKEN_BYTES)
        return share.less(owned, random.random())

    async def _be_present(self) -> None:
        """Leave one request open, by which others count this worker.

        One that has ended may have done so only here: it was not heard of for a while, as in an
        election, and the server keeps it, so that a new one beside it would count twice. So its
        inbox ends with it: a request that nobody listens to is dropped.
        """
        present, self._present = self._present, None
        if present is not None:
            if present.requests:
                self._present = present
                return
            await present.close()
        self._present = await self._pull(self._places.present, None)  # nothing ever comes by it
        if self._closed:
            await self._present.close()
        else:
            self._present.request(1, TOKEN_BYTES)

    async def _state(self, spec: ConsumerSpec) -> ConsumerState | None:
        return await self._broker.consumer_state(spec.stream, spec.name)

    async def close(self) -> None:
        """Ask for nothing any more; tokens that still come are given to `on_token`."""
        self._closed = True
        for pull in (*(self._pulls or ()), self._present):
            if pull is not None:
                await pull.close()

    def __repr__(self) -> str:
        return f"Tokens({self._share!r}, {self._asked} asked)"
