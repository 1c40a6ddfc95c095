"""RatedSlots: slots that are given out at a rate, as a bucket of tokens. Pure."""

from __future__ import annotations

from collections.abc import Callable

from mqinfer.flow.slots import Slots

BURST = 0.5  # seconds of the rate that may be asked for at once


class RatedSlots(Slots):
    """Slots that let no more than `rate` messages a second be asked for.

    A token is taken when a message is asked for, and comes back when the request ends without it.

    Args:
        max_messages: as of `Slots`.
        max_bytes: as of `Slots`.
        largest: as of `Slots`.
        rate: messages a second.
        clock: monotonic seconds.
        max_unhandled: as of `Slots`.
    """

    def __init__(
        self,
        max_messages: int,
        max_bytes: int,
        largest: int,
        *,
        rate: float,
        clock: Callable[[], float],
        max_unhandled: int | None = None,
    ):
        super().__init__(max_messages, max_bytes, largest, max_unhandled=max_unhandled)
        self._rate = rate
        self._clock = clock
        self._most = max(1.0, rate * BURST)
        self._tokens = 1.0
        self._filled = clock()

    def available(self) -> tuple[int, int] | None:
        """What to ask for now, as far as there are tokens."""
        now = self._clock()
        self._tokens = min(self._most, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        wanted = super().available()
        if wanted is None or self._tokens < 1:
            return None
        return min(wanted[0], int(self._tokens)), wanted[1]

    def ask(self, messages: int, size: int) -> None:
        """A request left, and took tokens."""
        super().ask(messages, size)
        self._tokens -= messages

    def withdraw(self, messages: int, size: int) -> None:
        """A request ended without bringing these: their tokens are back."""
        super().withdraw(messages, size)
        self._tokens = min(self._most, self._tokens + messages)
