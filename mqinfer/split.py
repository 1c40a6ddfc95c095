"""Split: finds the items at fault in a group that was refused as a whole. Pure.

A batch handler that raises, an insert that is refused, a request that a model does not take: each
is tried again in smaller parts until those at fault stand alone, so that a bad item never fails its
neighbours. Whoever uses it does the trying:

    split = Split([batch])
    while part := split.take():
        try:
            ...
        except Failure as error:
            for item in split.refused(part):
                ...  # it is at fault

What is nobody's fault (a server that is away, a handler that asks to come again) is no refusal: the
part fails whole, or waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

# So few are not halved where the first one at fault is always told.
_KNOWN = 64


class Split(Generic[T]):
    """Parts that are still to be tried, in order.

    Args:
        parts: to begin with; each a sequence that can be sliced, a `range` too.
        few: up to so many items are tried one by one, rather than by halves.
    """

    def __init__(self, parts: Iterable[Sequence[T]], *, few: int = 1):
        self._parts = deque(part for part in parts if len(part))
        self._few = few

    def take(self) -> Sequence[T] | None:
        """The part to try next; None when nothing is left."""
        return self._parts.popleft() if self._parts else None

    def refused(self, part: Sequence[T], at: int | None = None) -> Sequence[T]:
        """A part was refused: it is tried again in smaller ones, unless it is a single item.

        Args:
            part: which.
            at: where in it the first item at fault stands, if that is known. Those before it are
                not tried again.

        Returns:
            What is at fault: the part if it is one item, that at `at`, or nothing if its parts are
            to be tried.
        """
        if len(part) == 1:
            return part
        if at is not None and 0 <= at < len(part):
            rest = part[at + 1 :]
            self._cut(rest, max((len(rest) + 1) // 2, _KNOWN))
            return part[at : at + 1]
        self._cut(part, 1 if len(part) <= self._few else (len(part) + 1) // 2)
        return part[:0]

    def again(self, part: Sequence[T]) -> None:
        """Try a part again as it is, or what is left of it."""
        if len(part):
            self._parts.appendleft(part)

    def _cut(self, part: Sequence[T], size: int) -> None:
        starts = range(0, len(part), size)
        self._parts.extendleft(part[start : start + size] for start in reversed(starts))

    def __repr__(self) -> str:
        return f"Split({[len(part) for part in self._parts]} to try)"
