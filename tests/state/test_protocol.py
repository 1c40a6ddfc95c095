"""The protocol under any interleaving: deaths at every step, lost answers, redeliveries, resets.

The real `States` and `Memory` work on a bucket in this process. A server gives out the messages of
one key in order, each to one of two owners, and again to the other when the test lets the first
one's lease end, whatever that one still does. Where an owner is alone the next message may begin
when the one before is being written; one that fails takes those behind it along. A server may
forget the last acknowledgement, as one does that is killed. Writes may lose their answer, in which
case what is sent again is refused.
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
from mqinfer.state import states
from mqinfer.state.memory import Line, Memory
from tests.support import bucket as buckets

MESSAGES = 4


class Seen(State):
    values: list[int] = []  # noqa: RUF012 - msgspec makes a new one for each


class States(states.States):
    """What waits for others does so until the test says that it is due."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.waiting: list[Line] = []

    def later(self, line: Line, seconds: float) -> None:
        self.waiting.append(line)

    def due(self) -> None:
        waiting, self.waiting = self.waiting, []
        for line in waiting:
            line.overdue()


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
    behind: bool = False  # it began before the one before was written
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
    current: list[Handling] = field(default_factory=list)  # of the owner, in order
    passed: list[Handling] = field(default_factory=list)  # behind these the next may begin
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
            passes=self.pass_on,
        )

    def pass_on(self, job: Any, _begins: Any) -> None:
        """What a message led to is stored: the next may begin, when the test says so."""
        self.passed += [one for one in self.current if one.job is job]

    def deliver(self) -> None:
        """The next message, which begins behind what is under way of its key."""
        partition = SimpleNamespace(tenure=self.tenure if self.cached else None)
        delivery = SimpleNamespace(
            sequence=self.acknowledged + len(self.current) + 1,
            subject="a.m.k",
            partition=partition,
        )
        owner, job = self.owners[self.owner], SimpleNamespace(delivery=delivery)
        one = Handling(delivery.sequence, self.owner, self.tenure, owner, job)
        if self.current:
            before: Any = self.current[-1].memory
            one.behind, one.memory, one.step = True, before.behind(one.job), "handle"
        self.current.append(one)

    @property
    def may_deliver(self) -> bool:
        """Whether there is a next message, and it may begin."""
        if self.acknowledged + len(self.current) >= MESSAGES:
            return False
        if not self.current:
            return True
        return self.current[-1].step == "writing" and self.current[-1] in self.passed

    async def advance(self, one: Handling, *, fails: bool = False) -> None:
        """The next step of a handling, whoever owns the partition by now."""
        if one.step == "begin":
            one.memory = await one.states.open(one.job)
            one.step = "handle"
            if one.memory is None:
                self.ended(one, None)
        elif fails and one.step in ("handle", "write"):
            assert one.memory is not None
            one.step = "failing"
            one.memory.drop(ValueError("broken"), lambda error: self.ended(one, error))
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
            one.memory.keep(lambda error: self.ended(one, error))

    def ended(self, one: Handling, error: BaseException | None) -> None:
        """It is to be acknowledged, or to be handled again."""
        # Nobody resets the state here: who is refused was applied, by itself or by another, but for
        # one that began from a state of another's making.
        assert error is None or one.behind or one.step == "failing"
        one.step = "ended" if error is None else "void"
        if one not in self.current:
            return
        if error is None:
            assert one is self.current[0]  # in their order
            self.current.pop(0)
            self.acknowledged = max(self.acknowledged, one.sequence)
        if self.current and all(other.step == "void" for other in self.current):
            self.current.clear()  # they are handled again when none is at work
            self.tenure = next(self.tenures)

    def take_over(self, *, dies: bool) -> None:
        """The lease ends: the owner is dead, or does not know yet."""
        if not dies:
            self.late += self.current
        if dies:
            # What it has sent may arrive all the same.
            self.late = [one for one in self.late if one.owner != self.owner]
            self.owners[self.owner] = self.fresh()
        self.current = []
        self.owner = 1 - self.owner
        self.tenure = next(self.tenures)


actions = st.sampled_from(
    [
        "go",
        "go",
        "go",
        "next",
        "next",
        "fail",
        "due",
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


@settings(max_examples=100)
@given(st.lists(actions, max_size=60), st.booleans(), st.randoms(use_true_random=False))
def test_each_message_changes_the_state_once(todo: list[str], cached: bool, random: Any) -> None:
    asyncio.run(play(World(cached), todo, random))


async def play(world: World, todo: list[str], random: Any) -> None:
    for action in todo:
        await step(world, action, random)
    for _ in range(100):  # and then nothing happens any more that should not
        for action in ("go", "due", "arrive"):
            await step(world, action, random)
        for one in [*world.current, *world.late]:
            await world.advance(one)
    assert world.acknowledged == MESSAGES
    everything = list(range(1, MESSAGES + 1))
    fresh = world.fresh()
    version = await fresh.read("live.s.k")
    assert version.record is not None
    assert version.record.sequence == MESSAGES
    assert fresh.value(version, "k") == Seen(everything)
    # Each output is what its message made of the state that the one before it has left.
    assert world.outputs == {n: everything[:n] for n in everything}


async def step(world: World, action: str, random: Any) -> None:
    sent = world.bucket.sent
    if action == "go":
        if not world.current and world.may_deliver:
            world.deliver()
        if world.current:
            await world.advance(random.choice(world.current))
    elif action == "next":
        if world.may_deliver:
            world.deliver()
    elif action == "due":
        for one in world.owners:
            one.due()
    elif action == "fail":
        if world.current:
            await world.advance(random.choice(world.current), fails=True)
    elif action == "whole":  # a message from its beginning to its end
        for _ in range(4):
            await step(world, "go", random)
        await step(world, "due", random)
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
    elif action == "forget" and not world.current and world.acknowledged:
        world.acknowledged -= 1
        world.tenure = next(world.tenures)  # a server that was killed knows no owner
