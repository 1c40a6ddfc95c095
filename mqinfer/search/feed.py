"""Feed: the vectors of a generation from the stream, by a consumer of this process alone.

Each replica reads all: a consumer that is shared would give each of them a part. What the server
counts as acknowledged has been put into the shards, so its floor is the place to which a snapshot
is true.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from mqinfer.errors import Unavailable
from mqinfer.ports import ConsumerSpec

if TYPE_CHECKING:
    from mqinfer.ports import Broker, Delivery

_WINDOW = 2048  # messages that are asked for
_BYTES = 32 * 1024 * 1024
_TURN = 32  # messages that are read before searches have their turn
_IDLE = 60.0  # seconds after which the server forgets the consumer of a process that died
_LOOK = 0.25  # seconds between looks at how far it is, and whether to ask for more


class Feed:
    """What one process reads of a generation.

    Args:
        broker: JetStream.
        name: of the consumer.
        stream: that it reads.
        subjects: of the vectors.
        floor: place in the stream up to which all is known.
        take: puts what came into the shards.

    Attributes:
        floor: the same, now.
        lag: messages that are not read yet; -1: it has not begun.
        caught_up: whether all was read that there was when it began.
    """

    def __init__(
        self,
        broker: Broker,
        name: str,
        stream: str,
        subjects: tuple[str, ...],
        floor: int,
        take: Callable[[Delivery], None],
    ):
        self._broker = broker
        self._spec = ConsumerSpec(name, stream, subjects, max_ack_pending=_WINDOW, reader=_IDLE)
        self._take = take
        self._arrived: deque[Delivery] = deque()
        self._woken = asyncio.Event()
        self._open = 0  # messages that were asked for and have not come
        self.floor = floor
        self.lag = -1
        self.caught_up = asyncio.Event()
        self._read = 0

    async def run(self) -> None:
        """Read until cancelled.

        Raises:
            ConflictError: the consumer cannot be made.
            Unavailable: NATS does not answer, at the start.
        """
        await self._recreate()
        spec = self._spec
        pull = await self._broker.pull(
            spec.stream,
            spec.name,
            on_message=self._on_message,
            on_released=self._on_released,
            recreate=self._recreate,
        )
        looking = asyncio.create_task(self._look(), name=f"lag of {spec.name}")
        try:
            while True:
                if self._open <= _WINDOW // 2 and not pull.paused:
                    wanted = _WINDOW - self._open
                    self._open += wanted
                    pull.request(wanted, _BYTES)
                if not self._arrived:
                    self._woken.clear()
                    try:
                        async with asyncio.timeout(_LOOK):
                            await self._woken.wait()
                    except TimeoutError:
                        continue
                for _ in range(min(_TURN, len(self._arrived))):
                    delivery = self._arrived.popleft()
                    self._take(delivery)
                    self._broker.ack(delivery)
                    self._read += 1
                await asyncio.sleep(0)
        finally:
            looking.cancel()
            await pull.close()

    def _on_message(self, delivery: Delivery) -> None:
        self._open = max(0, self._open - 1)
        self._arrived.append(delivery)
        self._woken.set()

    def _on_released(self, messages: int, size: int) -> None:
        del size
        self._open = max(0, self._open - messages)
        self._woken.set()

    async def _recreate(self) -> None:
        spec = self._spec
        if await self._broker.consumer_state(spec.stream, spec.name) is None:
            await self._broker.ensure_consumer(replace(spec, start_sequence=self.floor + 1))

    async def _look(self) -> None:
        there = -1  # messages that there were when it began
        while True:
            with suppress(Unavailable):
                state = await self._broker.consumer_state(self._spec.stream, self._spec.name)
                if state is not None:
                    there = state.lag if there < 0 else there
                    self.lag = state.lag
                    self.floor = max(self.floor, state.acknowledged_floor)
                    if not state.lag or self._read > there:
                        self.caught_up.set()
            await asyncio.sleep(_LOOK)
