"""Trackers over a bucket and a stream of this process, which die between any two steps."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Collection, Sequence
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqinfer import App
from mqinfer.completion import progress, record
from mqinfer.completion.assemble import Tale
from mqinfer.completion.progress import COMPLETE, LATE
from mqinfer.completion.record import Record
from mqinfer.completion.roots import Root, parse, parse_one
from mqinfer.completion.tracker import Tracker
from mqinfer.errors import Unavailable
from mqinfer.streams import Streams
from tests.completion.trees import ROOT, ROOT_OF, WANTED, Tree, trees
from tests.support.bucket import Memory

APP = App("plants")


class Died(Exception):
    """The process of a tracker did."""


def payload(*records: Record) -> bytes:
    return record.together([record.encode(one) for one in records])


class World:
    """What trackers share, and the moments at which they die.

    Attributes:
        stored: records in their stream.
        told: what the join was told, each time.
        steps: that were taken outside of a tracker.
        heeds_first: whether only the first that the join is told counts.
    """

    def __init__(
        self, tree: Tree, deaths: Collection[int] = (), seed: int = 0, *, heeds_first: bool = False
    ):
        self.heeds_first = heeds_first
        self.tree = tree
        self.bucket = Memory()
        self.stored: list[Record] = []
        self.told: list[Tale] = []
        self.steps = 0
        self.deaths = set(deaths)
        self._random = random.Random(seed)

    async def step(self) -> None:
        """Others have their turn; perhaps the tracker dies."""
        for _ in range(self._random.randrange(3)):
            await asyncio.sleep(0)
        self.steps += 1
        if self.steps in self.deaths:
            raise Died

    # The bucket.

    async def load(self, key: str) -> tuple[bytes, int] | None:
        await self.step()
        return await self.bucket.load(key)

    async def save(self, key: str, value: bytes, revision: int, *, ttl: float | None = None) -> int:
        await self.step()
        saved = await self.bucket.save(key, value, revision)
        await self.step()
        return saved

    async def delete(self, key: str, revision: int) -> bool:
        raise AssertionError(key, revision)

    async def ensure(self) -> None:
        """It is there."""

    async def names(self) -> list[str]:
        return await self.bucket.names()

    # The stream.

    async def messages(self, stream: str, subject: str) -> AsyncGenerator[Any]:
        assert (stream, subject) == ("plants-settled", f"settled.plants.live.{ROOT_OF.token}")
        await self.step()
        yield type("Stored", (), {"data": b"a stranger's"})
        for one in list(self.stored):
            yield type("Stored", (), {"data": payload(one)})

    # Who waits.

    def names_of(self, kind: str) -> Sequence[str]:
        return ("report",) if kind == "photo" else ()

    def wanted(self, name: str) -> Collection[str]:
        assert name == "report"
        return WANTED

    def advance(self, *_: object) -> None:
        """Nobody listens on the way."""

    async def tell(self, name: str, root: Root, told: Tale) -> None:
        assert (name, root) == ("report", ROOT_OF)
        await self.step()
        if told.how == COMPLETE:
            settled = {one.node for one in self.stored}
            assert settled == {one.node for one in self.tree.records}, "told before it is settled"
        self.told.append(told)
        await self.step()

    def tracker(self) -> Tracker:
        waiting = type("Waiting", (), {"names": staticmethod(self.names_of)})()
        waiting.wanted, waiting.tell, waiting.advance = self.wanted, self.tell, self.advance
        waiting.heeds_first = lambda _name: self.heeds_first
        streams = cast("Streams", self)
        return Tracker(
            APP, None, bucket=self, streams=streams, waiting=waiting, max_payload=lambda: 1 << 20
        )


async def work(world: World, queue: list[list[Record]], done: list[list[Record]]) -> None:
    """One process, and those that follow it: what was not acknowledged comes again."""
    tracker = world.tracker()
    while queue:
        batch = queue.pop(0)
        world.stored += [one for one in batch if one not in world.stored]
        try:
            await tracker.take(ROOT_OF, batch, [payload(*batch)])
        except (Died, Unavailable):
            queue.append(batch)
            tracker = world.tracker()
        else:
            done.append(batch)


@settings(max_examples=60)
@given(trees(12), st.sets(st.integers(1, 80), max_size=12), st.integers(), st.booleans(), st.data())
def test_called_once_in_effect_with_exactly_its_outputs(
    tree: Tree, deaths: set[int], seed: int, heeds_first: bool, data: Any
) -> None:
    records = data.draw(st.permutations(tree.records))
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=len(records), max_size=len(records)))
    queue: list[list[Record]] = []
    rest = list(records)
    for size in sizes:
        if rest:
            queue.append(rest[:size])
            rest = rest[size:]
    again = data.draw(st.lists(st.sampled_from(queue), max_size=3))
    world = World(tree, deaths, seed, heeds_first=heeds_first)

    async def two() -> None:
        done: list[list[Record]] = []
        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            group.create_task(work(world, queue, done))
            group.create_task(work(world, queue, done))
        tells = len(world.told)
        await work(world, [list(one) for one in again], done)  # late redeliveries
        assert len(world.told) == tells or world.deaths or heeds_first

    asyncio.run(two())
    assert world.told
    first = world.told[0]
    assert first.id == ROOT
    assert [one.payload.data for one in first.outputs] == tree.grades
    assert [(one.stage, one.id) for one in first.died] == tree.died
    assert all(told == first for told in world.told)  # one id, and one content


@settings(max_examples=60)
@given(trees(12), st.sets(st.integers(1, 60), max_size=8), st.integers(), st.data())
def test_a_deadline_beside_records_is_told_one_thing(
    tree: Tree, deaths: set[int], seed: int, data: Any
) -> None:
    queue = [[one] for one in data.draw(st.permutations(tree.records))]
    world = World(tree, deaths, seed)
    fallback = Tale("fallback", None, None, (), (), LATE, {}, "")
    turns = data.draw(st.integers(0, 40))

    async def late() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        while True:
            try:
                await world.tracker().late(ROOT_OF, "report", fallback)
            except (Died, Unavailable):
                continue
            return

    async def both() -> None:
        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            group.create_task(work(world, queue, []))
            group.create_task(late())

    asyncio.run(both())
    assert world.told
    assert all(told == world.told[0] for told in world.told)


@settings(max_examples=60)
@given(trees(12), st.sets(st.integers(1, 60), max_size=8), st.integers(), st.data())
def test_one_who_heeds_the_first_is_told_something_true_at_first(
    tree: Tree, deaths: set[int], seed: int, data: Any
) -> None:
    queue = [[one] for one in data.draw(st.permutations(tree.records))]
    world = World(tree, deaths, seed, heeds_first=True)
    turns = data.draw(st.integers(0, 40))

    async def late() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        while True:
            try:
                await world.tracker().late(ROOT_OF, "report", FALLBACK)
            except (Died, Unavailable):
                continue
            return

    async def both() -> None:
        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            group.create_task(work(world, queue, []))
            group.create_task(late())

    asyncio.run(both())
    first = world.told[0]
    assert first.how in (COMPLETE, LATE)
    if first.how == COMPLETE:
        assert [one.payload.data for one in first.outputs] == tree.grades


@settings(max_examples=30)
@given(trees(12), st.booleans())
def test_one_who_heeds_the_first_is_told_before_anything_is_kept(
    tree: Tree, heeds_first: bool
) -> None:
    world = World(tree, heeds_first=heeds_first)
    kept: list[int] = []
    tell = world.tell

    async def told(*of: Any) -> None:
        kept.append(world.bucket.writes)
        await tell(*of)

    world.tell = told  # type: ignore[method-assign]
    world.stored = list(tree.records)
    asyncio.run(world.tracker().take(ROOT_OF, tree.records, [payload(*tree.records)]))
    assert kept == [0 if heeds_first else 1]
    assert world.bucket.writes == (0 if heeds_first else 2)
    assert all(progress.decode(value).done for value, _ in world.bucket.values.values())


@settings(max_examples=30)
@given(trees(12))
def test_what_was_kept_of_one_who_heeds_the_first_is_let_go(tree: Tree) -> None:
    world = World(tree, heeds_first=True)

    async def take() -> None:
        tracker = world.tracker()
        for one in tree.records:
            world.stored.append(one)
            await tracker.take(ROOT_OF, [one], [payload(one)])

    asyncio.run(take())
    assert len(world.told) == 1
    assert world.bucket.writes == max(0, len(tree.records) - 1) + (len(tree.records) > 1)
    assert all(progress.decode(value).done for value, _ in world.bucket.values.values())


FALLBACK = Tale("fallback", None, None, (), (), LATE, {}, "")


@settings(max_examples=60)
@given(trees(12), st.data())
def test_a_deadline_counts_what_trackers_that_were_away_have_not_taken_in(
    tree: Tree, data: Any
) -> None:
    world = World(tree)
    lost = data.draw(st.integers(0, len(tree.records) - 1))
    taken = data.draw(st.lists(st.sampled_from(tree.records), max_size=3))
    first = [one for one in tree.records if one.first is not None]
    some = [one for one in tree.records if one in first or one is not tree.records[lost]]

    async def late() -> None:
        world.stored = list(some)
        seen = [one for one in taken if one in some]
        await world.tracker().take(ROOT_OF, seen, [payload(*seen)])
        await world.tracker().late(ROOT_OF, "report", FALLBACK)

    asyncio.run(late())
    (told,) = world.told
    if len(some) == len(tree.records):
        assert (told.how, told.missing) == (COMPLETE, {})
        assert [one.payload.data for one in told.outputs] == tree.grades
    else:
        assert told.how == LATE
        assert told.id == ROOT
        assert sum(told.missing.values()) == 1


async def test_roots_that_nobody_waits_for_are_not_known() -> None:
    world = World(Tree())
    tracker = world.tracker()
    assert not tracker.knows(Root("another", ROOT_OF.token))
    assert tracker.knows(ROOT_OF)


@pytest.mark.parametrize("item", ["", "photo", "photo/zz", "a,b/" + "0" * 32, "p/" + "0" * 31])
def test_what_is_no_root(item: str) -> None:
    assert parse_one(item) is None
    assert parse(item, None) == ()
