"""Standing: whether a picture is an original, or whose duplicate it is. Pure.

The rule: a picture is the duplicate of the earliest *original* before it that it is near to, and
an original if there is none. So no two originals are near each other, each duplicate is near its
original (and not only to another duplicate), and what comes later changes nothing: who is what
follows from the pictures and their order alone, not from when each was handled.

A person's word about two pictures goes before. The same: the later one has the earlier one's
original. Different: neither is the other's duplicate, nor are both of a third.

What each picture must know for that comes to it by notes. It asks those before it that it met, the
earliest first, and whom it asked tells it again when its standing changes: those before a picture
are never told by it, so this ends, and whatever the order of the notes it ends alike. Every note
may come twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from mqinfer.dedup import parts
from mqinfer.dedup.looks import cosine_distance
from mqinfer.statetype import State

PERSON: Final = "person"


class Rule(msgspec.Struct, frozen=True):
    """What is near.

    Attributes:
        bits: in which the hashes of near pictures differ at most.
        matching: blocks that a part consists of.
        cosine: distance that their vectors have at most.
    """

    bits: int
    matching: int
    cosine: float


class Seen(msgspec.Struct, frozen=True, tag=True):
    """The picture was seen; the fields of its `Fingerprint`."""

    order: int
    looks: str
    vector: bytes


class Found(msgspec.Struct, frozen=True, tag=True):
    """Whom it met in a part, of those before it; `part` is "" where they came into it later."""

    part: str
    met: list[parts.Met]


class Ask(msgspec.Struct, frozen=True, tag=True):
    """Another one wants to be told of it, now and whenever its standing changes."""

    by: str


class Told(msgspec.Struct, frozen=True, tag=True):
    """How another one stands: its order (None: it was never seen) and original ("": undecided)."""

    by: str
    order: int | None
    original: str
    vector: bytes


class Word(msgspec.Struct, frozen=True, tag=True):
    """What a person said of it and another one; of several words the last one counts.

    Attributes:
        other: the other picture.
        same: whether they are the same.
        by: who said it.
        order: place of the word among all; 0 is the one that the person published.
    """

    other: str
    same: bool
    by: str = ""
    order: int = 0


What = Seen | Found | Ask | Told | Word


class Other(msgspec.Struct, array_like=True):
    """What a picture knows of another one.

    Attributes:
        order: its place, None while that is not known.
        bits: in which their hashes differ; None where they did not meet.
        asked: whether it was asked.
        original: its original; "" while that is not known.
        near: whether the vectors agree; None while they were not compared.
        distance: of the vectors, None where there are none to compare.
    """

    order: int | None = None
    bits: int | None = None
    asked: bool = False
    original: str = ""
    near: bool | None = None
    distance: float | None = None


class Standing(State):
    """What is remembered of a picture.

    Attributes:
        order: its place; None until it is seen.
        vector: of it.
        looks: its hash.
        waits: parts that have not told yet whom it met.
        others: it knows of.
        askers: who is told.
        words: by the other picture.
        original: as it was told last.
        why: what decided: "", "hash", "vector" or "person".
        said: place of the last word on it that was known then; 0 where there is none.
        revision: how often it was decided.
    """

    order: int | None = None
    vector: bytes = b""
    looks: str = ""
    waits: list[str] = msgspec.field(default_factory=list)
    others: dict[str, Other] = msgspec.field(default_factory=dict)
    askers: list[str] = msgspec.field(default_factory=list)
    words: dict[str, Word] = msgspec.field(default_factory=dict)
    original: str = ""
    why: str = ""
    said: int = 0
    revision: int = 0


class Verdict(msgspec.Struct, frozen=True):
    """Whose duplicate a picture is (its own: an original), and what decided that."""

    original: str
    why: str = ""
    other: Other = msgspec.field(default_factory=Other)


Sends = Iterator[tuple[str, What]]


def take(me: str, standing: Standing, what: What, rule: Rule) -> Sends:
    """A note comes: what is to be told to whom. What the picture *is* `settle` says, after it."""
    match what:
        case Seen():
            before = standing.order
            _see(standing, what, rule)
            if before is not None and standing.order != before:
                yield from ((asker, told(me, standing)) for asker in standing.askers)
        case Found():
            standing.waits = [part for part in standing.waits if part != what.part]
            for met in what.met:
                other = standing.others.setdefault(met.content, Other())
                other.order = met.order if other.order is None else min(other.order, met.order)
                other.bits = met.bits
        case Ask():
            if what.by not in standing.askers:
                standing.askers.append(what.by)
            yield what.by, told(me, standing)
        case Told():
            other = standing.others.setdefault(what.by, Other())
            other.original = what.original
            if what.order is not None:
                other.order = what.order
                distance = cosine_distance(standing.vector, what.vector)
                other.near = distance is None or distance <= rule.cosine
                other.distance = distance
        case Word():
            known = standing.words.get(what.other)
            if known is None or known.order < what.order:
                standing.words[what.other] = what
            # Asked again, too: it may have been seen since.
            standing.others.setdefault(what.other, Other()).asked = True
            yield what.other, Ask(me)


def _see(standing: Standing, seen: Seen, rule: Rule) -> None:
    if standing.order is not None and standing.order <= seen.order:
        return  # the same bytes again
    if standing.order is None:
        standing.looks, standing.vector = seen.looks, seen.vector
        standing.waits = probed(standing, rule)
        for other in standing.others.values():  # told before there was a vector to compare
            other.asked, other.near = False, None
    standing.order = seen.order


def probed(standing: Standing, rule: Rule) -> list[str]:
    """The parts that a picture goes into."""
    return parts.keys(standing.looks, rule.bits, rule.matching) if standing.looks else []


def told(me: str, standing: Standing) -> Told:
    """How a picture stands."""
    return Told(me, standing.order, standing.original, standing.vector)


def settle(me: str, standing: Standing) -> Verdict | str | None:
    """What a picture is; or whom it must ask first, or None where it waits to be told."""
    if standing.order is None or standing.waits:
        return None
    mine = (standing.order, me)
    before = sorted(
        (other.order, name)
        for name, other in standing.others.items()
        if other.order is not None and (other.order, name) < mine
    )
    said: dict[bool, list[str]] = {True: [], False: []}
    for _, name in before:
        if (word := standing.words.get(name)) is not None:
            said[word.same].append(name)
    for name in said[True] + said[False]:
        other = standing.others[name]
        if not other.asked or not other.original:
            return None if other.asked else name
    for name in said[True]:
        return Verdict(standing.others[name].original, PERSON, standing.others[name])
    barred = {*said[False], *(standing.others[name].original for name in said[False])}
    why = ""
    for _, name in before:
        other = standing.others[name]
        if other.bits is None:
            continue
        if not other.asked:
            return name
        if other.near is None or not other.original:
            return None
        if not other.near or other.original != name:
            continue
        if name in barred:
            why = PERSON
            continue
        return Verdict(name, "hash" if other.distance is None else "vector", other)
    return Verdict(me, why)
