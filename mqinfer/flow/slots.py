"""Slots: how many messages, and how many bytes, a stage may still ask for. Pure.

Promise 3: a stage never has more in flight than its limits, and never asks for more than it has
free slots for; prefetching beyond that is how other frameworks handle messages twice.
"""

from __future__ import annotations

from typing import Final

STORING: Final = 32  # messages of jobs whose outputs are being stored, in one stage


class Slots:
    """The account of one stage in one process.

    A message is first `asked` for, then `arrived`, then perhaps `handled`, at last `released`. Once
    it is handled it waits for JetStream alone, so its handler's place may be asked for again. Bytes
    are reserved when they are asked for. A server counts requests that overlap in its own order,
    so what is in flight may exceed `max_bytes` by the bytes of one request (at most half of them).

    Args:
        max_messages: in flight or asked for.
        max_bytes: in flight or asked for.
        largest: the largest message there can be, in bytes; `max_bytes` is raised to twice that,
            so that every message fits.

        max_unhandled: of the messages, those that are asked for, wait for a handler or are in it;
            up to twice as many while as many are being stored. None is no bound of its own.

    Attributes:
        adaptive: whether to ask for less where handlers are slow; else every slot is asked for.
        storing: those that are handled, and whose outputs are being stored.
        aside: those that wait for something else than a handler.
    """

    adaptive = True

    def __init__(
        self, max_messages: int, max_bytes: int, largest: int, *, max_unhandled: int | None = None
    ):
        self.max_messages = max_messages
        self.max_unhandled = max_unhandled or max_messages
        self.max_bytes = max(max_bytes, 2 * largest)
        self.largest = largest
        self.in_flight = 0
        self.storing = 0
        self.aside = 0
        self.bytes_in_flight = 0
        self.asked = 0
        self.bytes_asked = 0

    @property
    def free(self) -> int:
        """Messages that may still be asked for.

        Each message that is being stored lets another one wait: where handlers are quicker than
        the stream, more on the way hides the distance; where they are slow, nothing is hoarded.
        """
        return max(0, min(self.max_messages - self.in_flight, -self.beyond) - self.asked)

    @property
    def beyond(self) -> int:
        """Messages here beyond those that may wait or be handled; negative: so many may come."""
        unhandled = self.in_flight - self.storing - self.aside
        return unhandled - self.max_unhandled - min(self.storing, self.max_unhandled)

    def available(self) -> tuple[int, int] | None:
        """What to ask for now: messages and bytes; None when there is no room.

        At most half of the bytes go into one request, so that two can overlap.
        """
        free_bytes = self.max_bytes - self.bytes_in_flight - self.bytes_asked
        if self.free < 1 or free_bytes < self.largest:
            return None
        return self.free, min(free_bytes, max(self.max_bytes // 2, self.largest))

    @property
    def half_free(self) -> bool:
        """Whether so much is free that asking should not wait for more to become free."""
        return self.free * 2 >= min(self.max_messages, self.max_unhandled)

    def ask(self, messages: int, size: int) -> None:
        """A request left."""
        self.asked += messages
        self.bytes_asked += size

    def arrive(self, size: int) -> None:
        """A message that was asked for is here."""
        if self.asked:
            self.asked -= 1
        # Not by max(): this runs for every message.
        self.bytes_asked = self.bytes_asked - size if self.bytes_asked > size else 0
        self.in_flight += 1
        self.bytes_in_flight += size

    def withdraw(self, messages: int, size: int) -> None:
        """A request ended without bringing these."""
        self.asked = max(self.asked - messages, 0)
        self.bytes_asked = max(self.bytes_asked - size, 0)

    def handled(self) -> None:
        """A message waits for nothing but its outputs being stored."""
        self.storing += 1

    def again(self, *, handled: bool) -> None:
        """A message waits for a handler once more."""
        self.storing -= handled

    def release(self, size: int, *, handled: bool = False) -> None:
        """A message is settled."""
        self.in_flight -= 1
        self.storing -= handled
        self.bytes_in_flight -= size

    def __repr__(self) -> str:
        return (
            f"Slots({self.in_flight} in flight + {self.asked} asked of {self.max_messages}, "
            f"{self.bytes_in_flight} + {self.bytes_asked} of {self.max_bytes} bytes)"
        )


class SparingSlots(Slots):
    """Of what comes of jobs: asks for no more while this many outputs are on their way.

    A quick handler would fill the way to the server, on which live messages wait; one that is slow
    fills nothing, and has as many messages as any.
    """

    @property
    def free(self) -> int:
        """Messages that may still be asked for."""
        return max(0, min(super().free, STORING - self.storing - self.asked))

    @property
    def half_free(self) -> bool:
        """See `Slots.half_free`."""
        return self.free * 2 >= STORING
