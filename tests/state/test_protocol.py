"""The protocol under any interleaving: deaths at every step, lost answers, redeliveries, resets.

The real `States` and `Memory` work on a bucket in this process. A server gives out the messages of
one key in order, each to one of two owners, and again to the other when the test lets the first
one's lease end, whatever that one still does. It may forget the last acknowledgement, as one does
that is killed. Writes may lose their answer, in which case what is sent again is refused.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mqinfer import State
from mqinfer.bucket import PutDone
from mqinfer.codec import Codec
from mqinfer.state.states import Memory, States
from tests.support import bucket as buckets

MESSAGES = 4


class Seen(State):
    values: list[int] = []  # noqa: RUF012 - msgspec makes a new one for each


class Bucket(buckets.Memory):
    """Writes wait until they arrive, and their answers until they are given, or are lost."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, bytes, int, PutDone]] = []

    def put(
        self, key: str, value: bytes, revision: int, done: PutDone, *, ttl: float | None = None
    ) -> None:
        self.sent.append((key, value, revision, done))

    def arrive(self, which: int, *, answer_lost: bool) -> None:
        key, value, revision, done = self.sent.pop(which)
        if answer_lost:
            super().put(key, value, revision, lambda *_: None)
        super().put(key, value, revision, done)  # sent again, where the answer was lost


@dataclass
class Handling:
    """One owner's handling of one message; it may be dead, or be late by now."""

    sequence: int
    owner: int
    tenure: int
    states: States
    job: Any
    memory: Memory | None = None
    step: str = "begin"


@dataclass
class World:
    """The server, two owners, and what they have under way."""

    cached: bool
    bucket: Bucket = field(default_factory=Bucket)
    outputs: dict[int, list[int]] = field(default_factory=dict)  # the first ones: ids drop repeats
    acknowledged: int = 0
    late: list[Handling] = field(default_factory=list)
    current: Handling | None = None
    tenures: Any = field(default_factory=lambda: itertools.count(1))
    owner: int = 0
    tenure: int = 0

    def __post_init__(self) -> None:
        self.owners = [self.fresh(), self.fresh()]
        self.tenure = next(self.tenures)

    def fresh(self) -> States:
        async def created() -> str:
            return "once"

        return States(
            "s",
            Seen,
            starts=("a.m",),
            bucket=self.bucket,
            codec=Codec(),
            created=created,
            max_payload=lambda: 1 << 20,
            clock=lambda: 0.0,
        )

    def deliver(self) -> None:
        partition = SimpleNamespace(tenure=self.tenure if self.cached else None)
        delivery = SimpleNamespace(
            sequence=self.acknowledged + 1, subject="a.m.k", partition=partition
        )
        job = SimpleNamespace(delivery=delivery)
        self.current = Handling(
            delivery.sequence, self.owner, self.tenure, self.owners[self.owner], job
        )

    async def advance(self, one: Handling) -> None:
        """The next step of a handling, whoever owns the partition by now."""
        if one.step == "begin":
            one.memory = await one.states.open(one.job)
            one.step = "seen" if one.memory is None else "handle"
        elif one.step == "handle":
            assert one.memory is not None
            for _ in range(2):  # a batch that failed is handled by halves: the first time is void
                state = one.memory.begin()
                assert isinstance(state, Seen)
                state.values.append(one.sequence)
            one.memory.seal()
            # Published under an id: the first that comes is the one that stays.
            self.outputs.setdefault(one.sequence, list(state.values))
            one.step = "write"
        elif one.step == "write":
            assert one.memory is not None
            one.step = "writing"
            one.memory.keep(lambda error: self.kept(one, error))
        if one.step in ("seen", "kept") and one is self.current:
            self.acknowledged = max(self.acknowledged, one.sequence)
            self.current = None

    def kept(self, one: Handling, error: Exception | None) -> None:
        # Nobody resets the state here: who is refused was applied, by itself or by another.
        assert error is None
        one.step = "kept"
        if one is self.current:
            self.acknowledged = max(self.acknowledged, one.sequence)
            self.current = None

    def take_over(self, *, dies: bool) -> None:
        """The lease ends: the owner is dead, or does not know yet."""
        if self.current is not None and not dies:
            self.late.append(self.current)
        if dies:
            # What it has sent may arrive all the same.
            self.late = [one for one in self.late if one.owner != self.owner]
            self.owners[self.owner] = self.fresh()
        self.current = None
        self.owner = 1 - self.owner
        self.tenure = next(self.tenures)


actions = st.sampled_from(
    [
        "go",
        "go",
        "go",
        "arrive",
        "arrive",
        "whole",
        "whole",
        "lost",
        "late",
        "die",
        "pause",
        "forget",
    ]
)


@settings(max_examples=300)
@given(st.lists(actions, max_size=60), st.booleans(), st.randoms(use_true_random=False))
def test_each_message_changes_the_state_once(todo: list[str], cached: bool, random: Any) -> None:
    asyncio.run(play(World(cached), todo, random))


async def play(world: World, todo: list[str], random: Any) -> None:
    for action in todo:
        await step(world, action, random)
    for _ in range(100):  # and then nothing happens any more that should not
        for action in ("go", "arrive"):
            await step(world, action, random)
        for one in list(world.late):
            await world.advance(one)
    assert world.acknowledged == MESSAGES
    everything = list(range(1, MESSAGES + 1))
    states = world.fresh()
    version = await states.read("live.s.k")
    assert version.record is not None
    assert version.record.sequence == MESSAGES
    assert states.value(version, "k") == Seen(everything)
    # Each output is what its message made of the state that the one before it has left.
    assert world.outputs == {n: everything[:n] for n in everything}


async def step(world: World, action: str, random: Any) -> None:
    sent = world.bucket.sent
    if action == "go":
        if world.current is None and world.acknowledged < MESSAGES:
            world.deliver()
        if world.current is not None:
            await world.advance(world.current)
    elif action == "whole":  # a message from its beginning to its end
        for _ in range(4):
            await step(world, "go", random)
        for _ in range(len(sent)):
            await step(world, "arrive", random)
    elif action == "late" and world.late:
        await world.advance(random.choice(world.late))
    elif action in ("arrive", "lost") and sent:
        world.bucket.arrive(random.randrange(len(sent)), answer_lost=action == "lost")
        for _ in range(6):  # who was refused reads again
            await asyncio.sleep(0)
    elif action == "die":
        world.take_over(dies=True)
    elif action == "pause":
        world.take_over(dies=False)
    elif action == "forget" and world.current is None and world.acknowledged:
        world.acknowledged -= 1
        world.tenure = next(world.tenures)  # a server that was killed knows no owner
