"""The rule by itself: whatever the order in which notes come, and however often, it ends alike."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest

from mqinfer.dedup import parts
from mqinfer.dedup.duplicates import decided
from mqinfer.dedup.parts import Met, Part
from mqinfer.dedup.standing import (
    Ask,
    Found,
    Rule,
    Seen,
    Standing,
    What,
    Word,
    probed,
    settle,
    take,
    told,
)
from tests.support.dedup_app import content, truth

RULE = Rule(bits=6, matching=1, cosine=0.1)


class World:
    """Messages that are kept in order by key, and come again now and then; keys have no order."""

    def __init__(self, rule: Rule, seed: int):
        self.rule = rule
        self.random = random.Random(seed)
        self.queues: dict[tuple[str, str], list[object]] = defaultdict(list)
        self.standings: dict[str, Standing] = defaultdict(Standing)
        self.parts: dict[str, Part] = defaultdict(Part)
        self.decisions = 0

    def tell(self, who: str, what: What) -> None:
        self.queues["note", who].append(what)

    def run(self, steps: int | None = None) -> None:
        while self.queues and steps != 0:
            steps = None if steps is None else steps - 1
            key = self.random.choice(list(self.queues))
            one = self.queues[key].pop(0)
            if not self.queues[key]:
                del self.queues[key]
            for _ in range(1 + (self.random.random() < 0.1)):  # what was published twice
                self.note(key[1], one) if key[0] == "note" else self.probe(key[1], one)

    def note(self, me: str, what: What) -> None:
        standing = self.standings[me]
        before = standing.order
        for who, sent in take(me, standing, what, self.rule):
            self.tell(who, sent)
        if standing.order != before:
            for part in probed(standing, self.rule):
                self.queues["part", part].append((standing.order, me, standing.looks))
        found = settle(me, standing)
        if isinstance(found, str):
            standing.others[found].asked = True
            self.tell(found, Ask(me))
        elif found is not None and decided(standing, found):
            self.decisions += 1
            for asker in standing.askers:
                self.tell(asker, told(me, standing))

    def probe(self, key: str, one: tuple[int, str, str]) -> None:
        order, me, looks = one
        bits, matching = self.rule.bits, self.rule.matching
        earlier, later = parts.meet(self.parts[key], key, (order, me), looks, bits, matching)
        self.tell(me, Found(key, earlier))
        for met in later:
            self.tell(met.content, Found("", [Met(me, order, met.bits)]))

    def originals(self) -> dict[str, str]:
        return {me: standing.original for me, standing in self.standings.items()}


def pictures(pick: random.Random) -> dict[str, tuple[int, int]]:
    """Of three things, that drift by a few bits, so that not all that are alike are near."""
    seen = {}
    bases = [pick.getrandbits(64) for _ in range(3)]
    for n in range(14):
        thing = pick.randrange(3)
        looks = bases[thing]
        for _ in range(pick.randrange(6)):
            looks ^= 1 << pick.randrange(64)
        if pick.random() < 0.3:
            bases[thing] = looks
        seen[content(n)] = (n // 2, looks)  # two have one place: their names tell who is earlier
    return seen


@pytest.mark.parametrize("matching", [1, 2])
@pytest.mark.parametrize("seed", range(8))
def test_what_is_decided_follows_from_pictures_order_and_words_alone(
    seed: int, matching: int
) -> None:
    pick = random.Random(seed)
    seen = pictures(pick)
    words: dict[frozenset[str], bool] = {}
    world = World(Rule(6, matching, 0.1), seed)
    sends: list[tuple[str, What]] = []
    for me, (order, looks) in seen.items():
        sends += [(me, Seen(order + late, f"{looks:016x}", b"")) for late in (0, 100)]
    for number in range(5):
        one, other = pick.sample(sorted(seen), 2)
        words[frozenset((one, other))] = same = bool(number % 2)
        sends.append((one, Word(other, same, "ann", number + 1)))
        sends.append((other, Word(one, same, "ann", number + 1)))
    pick.shuffle(sends)  # also the same bytes with a later place before those with the earlier
    for who, what in sends:
        world.tell(who, what)
        world.run(pick.randrange(30))
    world.run()
    assert world.originals() == truth(seen, words)


def test_in_order_each_is_decided_once() -> None:
    world = World(RULE, 1)
    seen = pictures(random.Random(1))
    for me, (order, looks) in sorted(seen.items(), key=lambda one: (one[1][0], one[0])):
        world.tell(me, Seen(order, f"{looks:016x}", b""))
        world.run()
    assert world.originals() == truth(seen, {})
    assert world.decisions == len(seen)


@pytest.mark.parametrize(("bits", "matching"), [(0, 1), (6, 1), (6, 2), (10, 2), (16, 3)])
def test_whatever_is_near_meets_once(bits: int, matching: int) -> None:
    pick = random.Random(bits)
    for _ in range(50):
        one = pick.getrandbits(64)
        other = one
        for place in pick.sample(range(64), bits):
            other ^= 1 << place
        keys = [parts.keys(f"{looks:016x}", bits, matching) for looks in (one, other)]
        met = []
        for key in set(keys[0]) & set(keys[1]):
            part = Part()
            first = parts.meet(part, key, (1, content(1)), f"{one:016x}", bits, matching)
            assert first == ([], [])
            earlier, _ = parts.meet(part, key, (2, content(2)), f"{other:016x}", bits, matching)
            met += earlier
            again, _ = parts.meet(part, key, (2, content(2)), f"{other:016x}", bits, matching)
            assert again == earlier
            assert len(part.entries) == 96
        assert met == [Met(content(1), 1, bits)]
