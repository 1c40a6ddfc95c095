"""Partition: what one worker knows of a partition and its deliveries.

No I/O but what is asked of its pull.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from mqinfer.flow.ordered.places import SINGLE
from mqinfer.flow.ordered.turns import Found, Turns
from mqinfer.identity import SOURCE, header_number

if TYPE_CHECKING:
    from mqinfer.flow.job import Job
    from mqinfer.flow.ordered.places import Quota
    from mqinfer.ports import ConsumerState, Delivery, Pull

_tenures = itertools.count(1)

# Looks in a row that must show no request of others before the window is opened.
CALM = 3


class Token:
    """The claim to a partition: its message, unacknowledged.

    Attributes:
        delivery: of the token's message.
        renewed: when the claim began, in monotonic seconds; it was confirmed.
        asked: when it was last asked to be renewed.
    """

    __slots__ = ("asked", "delivery", "renewed")

    def __init__(self, delivery: Delivery, now: float):
        self.delivery = delivery
        self.renewed = self.asked = now

    @property
    def pulsed(self) -> float:
        """When the server last heard of it."""
        return self.renewed

    def __repr__(self) -> str:
        return f"Token({self.delivery!r})"


class Held:
    """A delivery from a partition.

    Identity, subject and place are those in the app's stream, so that what follows (outputs, dead
    letters) is the same as without partitions.

    Attributes:
        partition: that it is of; its `tenure` tells whether what is known of the key still counts.
        token: by which the partition was owned when it came.
        renewed: when its own lease began, in monotonic seconds.
        number: of the delivery, by the consumer's count.
        delivered: how often the server has delivered it.
        settled: an end was said.
    """

    __slots__ = (
        "attempt",
        "data",
        "delivered",
        "headers",
        "number",
        "partition",
        "pending",
        "published",
        "renewed",
        "reply",
        "sequence",
        "settled",
        "size",
        "stream",
        "subject",
        "token",
    )

    def __init__(self, delivery: Delivery, partition: Partition, now: float):
        self.partition = partition
        self.token: Token | None = None
        self.renewed = now
        self.settled = False
        self.data = delivery.data
        self.reply = delivery.reply
        self.attempt = self.delivered = delivery.attempt
        self.pending = delivery.pending
        self.published = delivery.published
        self.size = delivery.size
        self.number = delivery_number(delivery.reply)
        self.subject = delivery.subject.partition(".")[2]
        self.headers = headers = delivery.headers
        # "<stream> <sequence> <subjects> <transforms> <subject>"; the others as they were published
        origin = headers.pop(SOURCE, "").split(" ", 2)
        sequence = header_number(origin[1]) if len(origin) > 1 else 0
        self.stream = origin[0] if sequence else delivery.stream
        self.sequence = sequence or delivery.sequence

    def again(self) -> Held:
        """The same, to be handled again by this worker: it has come before."""
        # One that failed is no longer a first delivery, and yet none that the server counts.
        self.attempt = self.delivered + 1
        return self

    def __repr__(self) -> str:
        return f"Held({self.subject} #{self.sequence}, attempt {self.attempt})"


def delivery_number(reply: bytes) -> int:
    """The consumer's number of a delivery, from its reply subject; 0 where there is none.

    `$JS.ACK.[domain.account.]stream.consumer.delivered.stream_seq.consumer_seq.time.pending`,
    as in ADR-15 of NATS.
    """
    tokens = reply.split(b".")
    at = 8 if len(tokens) >= 11 else 6
    return int(tokens[at]) if len(tokens) > at else 0


class Partition:
    """One partition.

    Attributes:
        number: of it.
        consumer: its name.
        token: while it is owned; nothing of it is handled without.
        tenure: another number whenever this worker came to own the partition anew: what is kept
            here of its keys counts only while it is the same. None while nobody owns it alone.
        pull: from its consumer, while it is owned and not being given away.
        turns: what is here of it.
        asked: messages that were asked for, and `asked_bytes`.
        size: of what is here, in bytes.
        giving: it is being given to another worker.
        narrowing: what is here is worked off before the server gives out one at a time.
        doubted: since when nothing may begin, in monotonic seconds.
        looked: when the consumer was last looked at.
    """

    def __init__(self, number: int, consumer: str):
        self.number = number
        self.consumer = consumer
        self.token: Token | None = None
        self.tenure: int | None = None
        self.pull: Pull | None = None
        self.turns: Turns[Job] = Turns()
        self.asked = self.asked_bytes = self.size = 0
        self.giving = self.narrowing = False
        self.doubted = self.looked = 0.0
        self._missing = 0
        self._calm = 0

    # --- owning ---------------------------------------------------------------------------------

    def take(self, token: Token) -> None:
        """This worker owns it from now on."""
        self.token = token
        self.turns.doubt()
        self.turns.single = self.giving = self.narrowing = False
        self.doubted = token.renewed
        self.looked = 0.0
        self._missing = self._calm = 0

    def lose(self) -> None:
        """This worker does not own it any more."""
        self.token = self.tenure = None
        self.turns.doubt()

    @property
    def alone(self) -> bool:
        """Whether nobody else is given messages of it: a message that failed may wait here."""
        return not self.turns.single or len(self.turns) > 1

    # --- messages -------------------------------------------------------------------------------

    def wanted(self, quota: Quota) -> tuple[int, int] | None:
        """Messages and bytes to ask for now."""
        if self.token is None or self.pull is None or self.giving or self.pull.paused:
            return None
        here, turns = len(self.turns), self.turns
        if not turns.sure:
            messages = self._missing - self.asked
        elif turns.single:
            messages = 0 if here or self.asked else 1
        elif self.narrowing:
            messages = 0
        else:
            messages = quota.messages - here - self.asked
            if self.asked and 2 * messages < quota.messages:
                return None  # few free places are asked for together
        if messages < 1:
            return None
        if not turns.sure:
            return messages, quota.size  # the owner before had no more either
        size = quota.size - self.size - self.asked_bytes
        if size < quota.largest:
            return None
        return messages, min(size, max(quota.size // 2, quota.largest))  # so that two can overlap

    def ask(self, quota: Quota) -> None:
        """Ask for what is wanted."""
        wanted = self.wanted(quota)
        if wanted is not None and self.pull is not None:
            self.asked += wanted[0]
            self.asked_bytes += wanted[1]
            self._missing = 0  # until the next look
            self.pull.request(*wanted)

    def withdrawn(self, messages: int, size: int) -> None:
        """A request ended without bringing these."""
        self.asked = max(0, self.asked - messages)
        self.asked_bytes = max(0, self.asked_bytes - size)

    def arrived(self, delivery: Delivery, now: float) -> Held:
        """A message came, and is owned; where it has no place, it is to be handed back."""
        held = Held(delivery, self, now)
        held.token = self.token
        self.withdrawn(1, held.size)
        turns = self.turns
        here = len(turns)
        turns.delivered(held.sequence, held.subject, held.number, again=held.delivered > 1)
        if len(turns) > here:
            self.size += held.size
        if self.narrowing:
            self.narrowing = False
            turns.doubt()  # the server has begun to give out one at a time
        if not turns.sure:
            self._doubts(now)
        return held

    def _doubts(self, now: float) -> None:
        """Nothing begins for now."""
        if self.tenure is not None:
            self.tenure = None
            self.doubted = now
            self.looked = 0.0

    def settled(self, held: Held) -> Job | None:
        """The server knows the end of a message; gives the one whose turn that makes it."""
        if held.sequence in self.turns:
            self.size -= held.size
        following = self.turns.settled(held.sequence)
        if self.narrowing and not len(self.turns):
            self.narrow()
        return following

    def rest(self, held: Held, job: Job, now: float) -> None:
        """A message waits for its time."""
        self.turns.rest(held.sequence, job)
        if not self.turns.sure:
            self._doubts(now)

    def left(self, held: Held, now: float) -> None:
        """A message left unsettled."""
        if held.sequence in self.turns:
            self.size -= held.size
        self.turns.left(held.sequence)
        if not self.turns.sure:
            self._doubts(now)

    # --- looks ----------------------------------------------------------------------------------

    def look(self, state: ConsumerState, now: float) -> Found[Job]:
        """The server was asked about the consumer."""
        self.looked = now
        turns = self.turns
        if turns.single and turns.sure and state.max_ack_pending != SINGLE:
            self.widened(now)  # by another
        if not turns.sure:
            turns.single = state.max_ack_pending == SINGLE
            found = turns.look(state.unacknowledged, state.deliveries)
            if turns.sure:
                self.tenure = None if turns.single else next(_tenures)
            elif turns.busy:
                self.doubted = now  # it waits for what is here
            self._missing = self._ask_for(state)
            return found
        if not turns.single and state.max_ack_pending == SINGLE:
            self.narrowing = True
            if not len(turns):
                self.narrow()
        return Found()

    def _ask_for(self, state: ConsumerState) -> int:
        """Messages that must come again before others may begin.

        Until the first of them does, new ones would come in their place: one is asked for, now and
        then.
        """
        missing = state.unacknowledged - len(self.turns)
        if missing < 1 or self.turns.sure:
            return 0
        return missing if any(_again(job) for job in self.turns.items()) else 1

    def narrow(self) -> None:
        """From now on the server gives out one message at a time, to whoever asks."""
        self.turns.single = self.turns.sure = True
        self.narrowing = False
        self.tenure = None

    def strangers(self, state: ConsumerState) -> bool:
        """Whether requests wait that are not this worker's."""
        return state.requests > (self.pull.requests if self.pull is not None else 0)

    def may_widen(self, state: ConsumerState) -> bool:
        """Whether nobody else has pulled for a while, and nobody else has a message."""
        if self.strangers(state) or state.unacknowledged > len(self.turns):
            self._calm = 0
            return False
        self._calm += 1
        return self._calm >= CALM

    def widened(self, now: float) -> None:
        """The server gives out a window of messages, or is about to."""
        self.turns.single = False
        self.turns.doubt()
        self.doubted = now
        self._calm = 0

    def __repr__(self) -> str:
        return f"Partition({self.consumer}, {self.turns!r}, tenure={self.tenure})"


def _again(job: Job) -> bool:
    return job.delivery.attempt > 1
