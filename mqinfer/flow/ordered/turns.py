"""Turns: which messages of a partition may be handled next. Pure.

The rule: a message may begin when all of its key before it are settled, and nobody else has one.
Only the server knows what others have. But it numbers all deliveries of a consumer: while each one
comes here, without a gap, nobody else was given anything. Before that, and after a gap, nothing
begins until the server counts as many unacknowledged messages as are here: then all that was not
settled has come again, in whatever order, and stands here by its place in the stream.

That counts only what was delivered here since the last gap. What came before may have been given to
others meanwhile, and settled there; one that is settled and one that is missing make the same
number. So those are handed back: whichever has no end yet comes again.

Nor does a message count that was settled here and comes once more: the server gave it out just
before it heard of its end.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from mqinfer.flow.ordered.places import WINDOW

T = TypeVar("T")

# Ends that are remembered of a partition. One that is given out again in that moment lies, unread,
# behind less than a window of others: so many more may end before it is read.
ENDS = 2 * WINDOW


@dataclass(slots=True)
class _Place(Generic[T]):
    """Where a message stands.

    Attributes:
        key: of the message.
        number: of its delivery, by the consumer's count.
        item: the message; None until it has arrived.
        begun: its turn has come.
        resting: it keeps its turn, and nobody works on it.
        passed: the next of its key has begun beside it.
        behind: the sequence of the one beside which it has begun itself; 0 is none.
    """

    key: str
    number: int
    item: T | None = None
    begun: bool = False
    resting: bool = False
    passed: bool = False
    behind: int = 0


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """What came of a look.

    Attributes:
        ready: those that may begin now, as all are here.
        stale: those that are to be handed back, as others may have settled them.
    """

    ready: list[T] = field(default_factory=list)
    stale: list[T] = field(default_factory=list)


class Turns(Generic[T]):
    """The messages of one partition that are here.

    Attributes:
        sure: all that was not settled before these is here; nothing begins before.
        single: the server gives out one message at a time, and others may ask, so that a gap says
            nothing: what comes may begin.
        lost: how many left unsettled: what the server was asked before the last did knows nothing
            of it.
    """

    def __init__(self) -> None:
        self.sure = False
        self.single = False
        self.lost = 0
        self._places: dict[int, _Place[T]] = {}
        self._ends: OrderedDict[int, None] = OrderedDict()  # settled here of late
        # Key of what has begun -> the sequences behind it.
        self._lanes: dict[str, deque[int] | None] = {}
        self._begun = 0
        self._next = 0  # number of the next delivery
        self._from = 0  # numbers from here to the next one have all come here
        self._seen: tuple[int, int] | None = None  # by an earlier look, with nothing since

    # --- what comes -----------------------------------------------------------------------------

    def delivered(self, sequence: int, key: str, number: int, *, again: bool) -> None:
        """The server has delivered a message here.

        One that was settled here has no place: it is to be handed back. As a rule the server has
        heard of its end meanwhile; one that has forgotten it gives the message out once more.

        Args:
            sequence: its place in the stream.
            key: of the message.
            number: of the delivery, by the consumer's count.
            again: it was delivered before.
        """
        place = self._places.get(sequence)
        gap = number != self._next
        if gap:
            self._from = number
        self._next = number + 1
        self._seen = None
        ended = sequence in self._ends
        if ended:
            del self._ends[sequence]
        if place is not None:
            place.number = number
        elif not (ended and again):
            self._places[sequence] = _Place(key, number)
        # What comes again, and is not here, was settled once: the server may have forgotten.
        if self.sure and not self.single and (gap or (again and place is None)):
            self.doubt()

    def arrived(self, sequence: int, item: T) -> bool:
        """A message that was delivered is in hand; whether its turn has come."""
        place = self._places[sequence]
        place.item = item
        if not self.sure:
            return False
        if place.key in self._lanes:
            lane = self._lanes[place.key]
            if lane is None:
                lane = self._lanes[place.key] = deque()
            lane.append(sequence)
            return False
        self._begin(place)
        return True

    def passes(self, sequence: int) -> T | None:
        """A message is as good as settled; gives the next of its key, which begins beside it.

        That may be only where whatever becomes of this one is told to it: see `rest`.
        """
        place = self._places.get(sequence)
        if place is None or not self.sure or self.single or not place.begun or place.passed:
            return None
        following = self._next_of(place)
        if following is None:
            return None
        place.passed = True
        following.behind = sequence
        return following.item

    def rest(self, sequence: int, item: T) -> None:
        """A message whose turn has come waits for its time, perhaps as another item.

        Where others of its key have begun beside it these are to rest as well, and all begin anew,
        in their order.
        """
        place = self._places[sequence]
        place.item = item
        if place.begun and not place.resting:
            place.resting = True
            self._begun -= 1
        if place.passed or place.behind in self._places:
            self.doubt()

    def due(self, sequence: int) -> bool:
        """The time of a message has come; whether it may begin."""
        place = self._places.get(sequence)
        if place is None or not place.resting or not self.sure:
            return False  # a look lets it begin
        place.resting = False
        self._begun += 1
        return True

    # --- what ends ------------------------------------------------------------------------------

    def settled(self, sequence: int) -> T | None:
        """The server knows that a message is settled; gives the one whose turn that makes it."""
        place = self._places.pop(sequence, None)
        if place is None:
            return None
        self._ends[sequence] = None
        if len(self._ends) > ENDS:
            self._ends.popitem(last=False)
        self._begun -= place.begun and not place.resting
        return self._following(place) if self.sure and place.begun and not place.passed else None

    def left(self, sequence: int) -> None:
        """A message left unsettled: what is here waits until it is settled somewhere."""
        place = self._places.pop(sequence, None)
        if place is not None:
            self._begun -= place.begun and not place.resting
            if place.begun:
                self._lanes.pop(place.key, None)
        self.lost += 1
        if self._places or not self.single:
            self.doubt()

    def doubt(self) -> None:
        """Somebody else may have messages: nothing begins until all are here."""
        self.sure = False
        self._lanes.clear()
        self._seen = None

    def look(self, unacknowledged: int, deliveries: int) -> Found[T]:
        """The server was asked about the consumer.

        Args:
            unacknowledged: messages that were delivered, and have no end.
            deliveries: of the consumer, up to when it answered.
        """
        if self.sure or self._begun:
            return Found()
        complete, stale = self._complete(unacknowledged, deliveries)
        if not complete:
            return Found(stale=stale)
        if any(place.item is None for place in self._places.values()):
            return Found()  # let go as it came; it leaves at once
        self.sure = True
        if deliveries >= self._next:
            self._from = self._next = deliveries + 1
        heads = []
        for sequence in sorted(self._places):
            place = self._places[sequence]
            place.begun = place.resting = place.passed = False
            place.behind = 0
            assert place.item is not None
            if self.arrived(sequence, place.item):
                heads.append(place.item)
        return Found(ready=heads)

    def _complete(self, unacknowledged: int, deliveries: int) -> tuple[bool, list[T]]:
        """Whether all that has no end is here for sure; and if it is not, what is stale."""
        if self.single and unacknowledged <= 1:
            return True, []
        # What came after the server had answered is not in its numbers.
        here = [place for place in self._places.values() if place.number <= deliveries]
        if unacknowledged > len(here):
            return False, []
        since = self._from
        if deliveries >= self._next:
            if not here:
                return True, []  # nothing is under way to anybody
            # The last deliveries went elsewhere; or one is under way to here.
            before, self._seen = self._seen, (unacknowledged, deliveries)
            if before != self._seen:
                return False, []
            since = deliveries + 1
        elif since > deliveries + 1:
            return False, []
        stale = [place.item for place in here if place.number < since and place.item is not None]
        return not stale and unacknowledged == len(here), stale

    def _begin(self, place: _Place[T]) -> None:
        self._lanes[place.key] = None
        place.begun = True
        self._begun += 1

    def _following(self, place: _Place[T]) -> T | None:
        following = self._next_of(place)
        if following is not None:
            return following.item
        self._lanes.pop(place.key, None)
        return None

    def _next_of(self, place: _Place[T]) -> _Place[T] | None:
        """The next of its key begins, if one waits."""
        lane = self._lanes.get(place.key)
        while lane:
            following = self._places.get(lane.popleft())
            if following is not None:
                following.begun = True
                self._begun += 1
                return following
        return None

    # --- looking --------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether messages are at work."""
        return self._begun > 0

    def waiting(self) -> list[T]:
        """Those that nobody works on, in order."""
        return [
            place.item
            for _, place in sorted(self._places.items())
            if place.item is not None and (not place.begun or place.resting)
        ]

    def item(self, sequence: int) -> T | None:
        """The message of a place, if it is here."""
        place = self._places.get(sequence)
        return None if place is None else place.item

    def items(self) -> list[T]:
        """All that are here."""
        return [place.item for place in self._places.values() if place.item is not None]

    def __contains__(self, sequence: int) -> bool:
        return sequence in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return f"Turns({len(self)} here, {self._begun} at work, sure={self.sure})"
