"""Ordered: messages with one key are handled one after the other, by any number of workers.

JetStream copies the messages of an ordered type into a stream of partitions (`plan.copy_spec`),
and each stage has a consumer a partition that gives out its next message only when the one before
is acknowledged (`plan.consumer_specs`). So every worker may ask for every partition, and whoever
gets a message holds its partition until the message is answered: the message is the lease. It ends
with `ack_wait`, is renewed at a third of that, and moves on by itself when its worker dies.

A lease must not be used after its end: another worker may hold the partition by then. So renewals
are confirmed by the server, and a worker that has heard none for most of `ack_wait` (it was
stopped, or cut off) drops the message without a word: it cancels the handler, and neither
acknowledges nor gives back what is no longer its own. Outputs that such a worker had sent are
repeats of those of the next holder, and are dropped as such by their ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from mqinfer.flow.claims import HOLD
from mqinfer.flow.policy import Policy
from mqinfer.flow.slots import Slots
from mqinfer.identity import SOURCE, header_number

if TYPE_CHECKING:
    from mqinfer.flow.job import Job
    from mqinfer.ports import Broker, Delivery, Pull

BEAT = 0.25  # seconds between looks whether this process stands still


class Partition:
    """What one worker knows of one partition.

    Attributes:
        pull: from its consumer.
        asked: a request is open.
        held: a message of it is here, and is not settled.
        tenure: another number whenever this worker came to own the partition anew: what is kept
            here of its keys counts only while it is the same. None while nobody owns it alone.
    """

    __slots__ = ("asked", "held", "pull", "tenure")

    def __init__(self) -> None:
        self.pull: Pull | None = None
        self.asked = False
        self.held = False
        self.tenure: int | None = None  # the lease is on one message, and nothing is known between

    def __repr__(self) -> str:
        return f"Partition(asked={self.asked}, held={self.held}, tenure={self.tenure})"


class Held:
    """A delivery from a partition, told as the original message, with when its lease began.

    Identity, subject and place are those in the app's stream, so that what follows (outputs, dead
    letters) is the same as without partitions.
    """

    __slots__ = (
        "_delivery",
        "_headers",
        "attempt",
        "data",
        "partition",
        "pending",
        "published",
        "renewed",
        "reply",
        "sequence",
        "size",
        "stream",
    )

    def __init__(self, delivery: Delivery, partition: Partition, now: float):
        self._delivery = delivery
        self.partition = partition
        self.renewed = now
        self.data = delivery.data
        self.reply = delivery.reply
        self.attempt = delivery.attempt
        self.pending = delivery.pending
        self.published = delivery.published
        self.size = delivery.size
        self._headers = {k: v for k, v in delivery.headers.items() if k != SOURCE}
        # "<stream> <sequence> <subjects> <transforms> <subject>"
        origin = delivery.headers.get(SOURCE, "").split(" ")
        sequence = header_number(origin[1]) if len(origin) > 1 else 0
        self.stream = origin[0] if sequence else delivery.stream
        self.sequence = sequence or delivery.sequence

    @property
    def subject(self) -> str:
        """What it was published on."""
        return self._delivery.subject.partition(".")[2]

    @property
    def headers(self) -> dict[str, str]:
        """As they were published."""
        return self._headers

    def __repr__(self) -> str:
        return f"Held({self.subject} #{self.sequence}, attempt {self.attempt})"


class Partitions:
    """A runner's way to its partitions: pulls from all, and renews what it holds.

    Args:
        broker: the server.
        consumers: names, one a partition.
        ack_wait: of the consumers, in seconds.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        broker: Broker,
        consumers: Sequence[str],
        ack_wait: float,
        clock: Callable[[], float],
    ):
        self._broker = broker
        self._consumers = consumers
        self._beat = min(BEAT, ack_wait / 20)
        self._clock = clock
        self._beats = (clock(), clock())

    async def pull(
        self,
        stream: str,
        consumer: str,
        *,
        on_message: Callable[[Delivery], None],
        on_released: Callable[[int, int], None],
        recreate: Callable[[], Awaitable[object]],
    ) -> PartitionedPull:
        """Begin to pull from every partition; see `Broker.pull`."""
        del consumer  # the stage's name; its consumers are ours
        partitions = [Partition() for _ in self._consumers]
        beating = asyncio.create_task(self._keep_beat(), name="beat")
        opened = PartitionedPull(partitions, beating)
        for name, partition in zip(self._consumers, partitions, strict=True):
            partition.pull = await self._broker.pull(
                stream,
                name,
                on_message=self._arrival(partition, on_message),
                on_released=_withdrawal(partition, on_released),
                recreate=recreate,
            )
        return opened

    async def _keep_beat(self) -> None:
        """Notice when this process stands still.

        What is read after that may have lain in the socket all the while: its lease counts from
        the last sign of life before, not from when it was read.
        """
        while True:
            self._beats = (self._beats[1], self._clock())
            await asyncio.sleep(self._beat)

    def _arrival(
        self, partition: Partition, on_message: Callable[[Delivery], None]
    ) -> Callable[[Delivery], None]:
        def arrived(delivery: Delivery) -> None:
            partition.asked = False
            partition.held = True
            on_message(Held(delivery, partition, self._beats[0]))

        return arrived

    def progress(self, delivery: Delivery, heard: Callable[[], None] | None = None) -> None:
        """Renew the lease; it counts from when it was asked for, once the server has answered."""
        asked = self._clock()

        def renewed() -> None:
            if isinstance(delivery, Held):
                delivery.renewed = max(delivery.renewed, asked)
            if heard is not None:
                heard()

        self._broker.progress(delivery, renewed)


def _withdrawal(
    partition: Partition, on_released: Callable[[int, int], None]
) -> Callable[[int, int], None]:
    def released(messages: int, size: int) -> None:
        if messages:
            partition.asked = False
        on_released(messages, size)

    return released


class PartitionedPull:
    """The pulls of all partitions as one; each has at most one message asked for or here."""

    def __init__(self, partitions: Sequence[Partition], beating: asyncio.Task[None]):
        self._partitions = partitions
        self._beating = beating

    def request(self, messages: int, max_bytes: int) -> None:
        """Ask `messages` partitions for one message each."""
        # `OneEach` gives out a slot for each partition that is neither asked nor held.
        idle = (part for part in self._partitions if not part.asked and not part.held)
        for _, partition in zip(range(messages), idle, strict=False):
            assert partition.pull is not None
            partition.asked = True
            partition.pull.request(1, max_bytes)

    @property
    def paused(self) -> bool:
        """Whether to wait before the next request, since one ended badly."""
        return any(part.pull is None or part.pull.paused for part in self._partitions)

    async def close(self) -> None:
        """Stop taking messages; those that still arrive are handed back at once."""
        pulls = [part.pull for part in self._partitions if part.pull is not None]
        await asyncio.gather(*(pull.close() for pull in pulls))
        self._beating.cancel()
        await asyncio.wait({self._beating})

    def __repr__(self) -> str:
        asked = sum(part.asked for part in self._partitions)
        held = sum(part.held for part in self._partitions)
        return f"PartitionedPull({asked} asked, {held} held of {len(self._partitions)})"


class OneEach(Slots):
    """Slots for one message of each partition; bytes are bounded by the largest message there is.

    Args:
        partitions: their number.
        largest: the largest message there can be, in bytes.
    """

    adaptive = (
        False  # a partition that is not asked for is not handled, and nobody knows which has work
    )

    def __init__(self, partitions: int, largest: int):
        super().__init__(partitions, partitions * largest, largest)

    def available(self) -> tuple[int, int] | None:
        """One message, from any partition that is free."""
        return (1, self.largest) if self.free > 0 else None

    @property
    def half_free(self) -> bool:
        """A partition stands still until it is asked for: never wait for more to become free."""
        return True


class Leases(Policy):
    """A message is a lease on its partition, renewed by the pulse and lost with time.

    Args:
        ack_wait: of the partitions' consumers, in seconds.
    """

    def __init__(self, ack_wait: float):
        self._ack_wait = ack_wait

    def owns(self, job: Job, now: float) -> bool:
        """Whether the lease of a message is still held, as far as this worker can know."""
        delivery = job.delivery
        return not isinstance(delivery, Held) or now - delivery.renewed <= HOLD * self._ack_wait

    def heard(self, job: Job) -> float:
        """When the lease was last renewed; a renewal that was not confirmed is tried again."""
        delivery = job.delivery
        return delivery.renewed if isinstance(delivery, Held) else job.pulsed

    def renewed(self, job: Job, asked: float) -> None:
        """The lease begins anew."""
        if isinstance(job.delivery, Held):
            job.delivery.renewed = max(job.delivery.renewed, asked)

    def left(self, job: Job) -> None:
        """Its partition may be asked again."""
        if isinstance(job.delivery, Held):
            job.delivery.partition.held = False
