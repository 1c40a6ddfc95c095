"""Turns: whose call goes first where several callers ask one model. Pure.

A caller is a stage, or outside of handlers a handle. Each call has a turn: the one after its
caller's last, but none that is over. So the calls of one caller go in order; one that asks for
thousands at once has as many turns, and another that asks for one meanwhile has the next. Known as
start-time fair queueing. Requests still hold the calls of whoever comes next, of all callers.
"""

from __future__ import annotations

from collections.abc import Hashable

# The turn, and between equal ones the order of arrival.
Place = tuple[int, int]


class Turns:
    """The turns of those who wait."""

    __slots__ = ("_arrived", "_over", "_waiting")

    def __init__(self) -> None:
        self._over = 0
        self._arrived = 0
        # By caller, its last turn and how many of its calls wait.
        self._waiting: dict[Hashable, list[int]] = {}

    def place(self, caller: Hashable) -> Place:
        """The place of a new call."""
        self._arrived += 1
        waiting = self._waiting.get(caller)
        if waiting is None:
            turn = self._over + 1
            self._waiting[caller] = [turn, 1]
        else:
            turn = waiting[0] = max(waiting[0], self._over) + 1
            waiting[1] += 1
        return turn, self._arrived

    def back(self, caller: Hashable, place: Place) -> None:
        """A call that went waits again, in its old place."""
        waiting = self._waiting.setdefault(caller, [place[0], 0])
        waiting[0] = max(waiting[0], place[0])
        waiting[1] += 1

    def gone(self, caller: Hashable) -> None:
        """A call waits no more."""
        waiting = self._waiting[caller]
        waiting[1] -= 1
        if not waiting[1]:
            del self._waiting[caller]

    def over(self, place: Place) -> None:
        """Calls up to this one have gone."""
        if place[0] > self._over:
            self._over = place[0]
