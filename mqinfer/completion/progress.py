"""Progress: what is opened and what is settled below one root, as two sets that only grow. Pure.

A *node* is a message before one of its readers. Whoever makes a message opens a node for each of
its readers, and settles the one that it was handled at, both in one record. A root is complete when
its own readers are known (`rooted`) and every node that was opened is settled.

Unions commute and a repeat adds nothing, so neither the order of records nor their repetition, nor
trackers that work at once, can change the result. That a complete root has nothing left follows by
induction from the root down: a settled node brought its record, which opened what came of it.
Counters have no such property: out of order they touch zero too early, and redelivery counts twice.

A node is the first 8 bytes of a hash of its name: among the 25,000 nodes of the largest root two
are the same with a probability of 2e-11 (n squared / 2**65).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

import msgspec

SIZE: Final = 8  # bytes of a node
# Outputs of one message, and outputs that a join is given; what has more is none for a handler.
LIMIT: Final = 10_000
OUTPUT: Final = 64  # bytes that an output takes in a record, at most
# Nodes below one root: 200 kB in its key, and as much again for each deadline that was decided.
NODES: Final = 25_000

COMPLETE: Final = "complete"
LATE: Final = "late"
TOO_MANY: Final = "too many"
CHANGED: Final = "changed"  # some outputs were not asked for yet when they were written


def node(identity: str, reader: str) -> bytes:
    """A message before one of its readers."""
    return blake2b(f"{identity}\x1f{reader}".encode(), digest_size=SIZE).digest()


class Effect(msgspec.Struct, frozen=True):
    """What one record adds.

    Attributes:
        rooted: whether it names the readers of the root.
        opens: nodes.
        settles: nodes.
        too_many: whether it leaves out some.
    """

    rooted: bool = False
    opens: frozenset[bytes] = frozenset()
    settles: frozenset[bytes] = frozenset()
    too_many: bool = False


class Decision(msgspec.Struct, array_like=True, frozen=True):
    """How one who waits for the root is told: fixed once, so that all who tell it say the same.

    Attributes:
        how: COMPLETE, LATE (its deadline came first) or TOO_MANY.
        told: whether it was published.
        seen: the nodes that were settled then, where that is not all of them.
    """

    how: str
    told: bool = False
    seen: bytes = b""


class Progress(msgspec.Struct, array_like=True, frozen=True):
    """What is known of one root; the value of its key.

    Attributes:
        both: nodes that are opened and settled, one behind the other.
        opened: those that are only opened.
        settled: those that are only settled: their record came before that which opens them.
        rooted: whether the readers of the root are among them.
        decided: by name of who waits for it.
        done: everybody is told: all else was let go, and what comes is too late.
    """

    both: bytes = b""
    opened: bytes = b""
    settled: bytes = b""
    rooted: bool = False
    decided: dict[str, Decision] = {}
    done: bool = False

    @property
    def counts(self) -> tuple[int, int]:
        """How many nodes are settled, and how many are open."""
        return len(self.both) // SIZE, len(self.opened) // SIZE

    @property
    def complete(self) -> bool:
        """Whether nothing is left."""
        return self.rooted and bool(self.both) and not self.opened


NOTHING = Progress()
DONE = Progress(done=True)

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Progress).decode


def split(nodes: bytes) -> frozenset[bytes]:
    """The nodes of a value."""
    return frozenset(nodes[at : at + SIZE] for at in range(0, len(nodes), SIZE))


def packed(nodes: Iterable[bytes]) -> bytes:
    """Nodes as a value: the same nodes are the same bytes."""
    return b"".join(sorted(nodes))


def outputs_in(max_payload: int) -> int:
    """The outputs that a message may have where the server takes so many bytes."""
    return min(LIMIT, max_payload // OUTPUT)


def nodes_in(max_payload: int, waiting: int) -> int:
    """The nodes that a root may have for which so many wait: all, and what each decision saw."""
    return min(NODES, max_payload // (SIZE * (waiting + 2)))


def added(
    before: Progress, effects: Iterable[Effect], waiting: Sequence[str], most: int = NODES
) -> Progress:
    """The union with what some records say, and who is told for it.

    Args:
        before: as it is kept.
        effects: of the records, in any order.
        waiting: the names of those who wait for the root.
        most: nodes that are kept; with more it is told as it is.
    """
    if before.done or all(name in before.decided for name in waiting):
        return before
    both = split(before.both)
    opened = set(both | split(before.opened))
    settled = set(both | split(before.settled))
    every = opened | settled
    rooted, over = before.rooted, False
    for effect in effects:
        rooted = rooted or effect.rooted
        settled |= effect.settles
        every |= effect.settles
        every |= effect.opens
        if over := effect.too_many or len(every) > most:
            break  # nor is kept what it opens: there may be more of that than the key may hold
        opened |= effect.opens
    after = msgspec.structs.replace(
        before,
        both=packed(opened & settled),
        opened=packed(opened - settled),
        settled=packed(settled - opened),
        rooted=rooted,
    )
    if over:
        return decided(after, waiting, TOO_MANY)
    return decided(after, waiting, COMPLETE) if after.complete else after


def decided(before: Progress, names: Sequence[str], how: str) -> Progress:
    """It is fixed how these are told, where it was not before."""
    new = [name for name in names if name not in before.decided]
    if before.done or not new:
        return before
    seen = b"" if how == COMPLETE else packed(split(before.both) | split(before.settled))
    decision = Decision(how, seen=seen)
    return msgspec.structs.replace(
        before, decided={**before.decided, **dict.fromkeys(new, decision)}
    )


def told(before: Progress, names: Iterable[str], waiting: Sequence[str]) -> Progress:
    """These have been told; once all have, the rest is let go.

    Args:
        before: as it is kept.
        names: who was told.
        waiting: the names of all who wait for the root.
    """
    if before.done:
        return before
    now = {
        name: Decision(decision.how, told=True) if name in names else decision
        for name, decision in before.decided.items()
    }
    if all(name in now and now[name].told for name in waiting):
        return DONE
    return msgspec.structs.replace(before, decided=now)
