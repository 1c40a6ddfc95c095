"""Callers for whom there is no room wait in order, the live ones first, and none is forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mqinfer.inference.batcher import Batcher
from mqinfer.inference.room import Room
from mqinfer.inference.turns import Place


@dataclass(eq=False)
class Caller:
    """What a room knows of a call."""

    name: str
    bulk: bool = False
    size: int = 1
    place: Place = (0, 0)
    entry: Any = None
    losses: Any = None

    @property
    def caller(self) -> str:
        return self.name


def room_of(**most: int) -> tuple[Any, Batcher[Any]]:
    batcher: Batcher[Any] = Batcher(**most)
    return Room(batcher, lambda _: "alike", lambda: 0.0), batcher


def answer(batcher: Batcher[Any]) -> list[Caller]:
    """A request goes, and is answered."""
    taken = batcher.take(1)
    for entry in taken:
        batcher.done(entry)
    if taken:
        batcher.finish()
    return [entry.item for entry in taken]


def test_who_comes_later_does_not_overtake_by_being_small() -> None:
    room, batcher = room_of(max_bytes=10, max_calls=100)
    first, large, small = Caller("a", size=6), Caller("b", size=6), Caller("c", size=1)
    assert room.enter(first)
    assert not room.enter(large)
    assert not room.enter(small)
    assert not room.admit()
    answer(batcher)
    assert room.admit()
    assert answer(batcher) == [large]
    assert answer(batcher) == [small]


def test_one_that_waits_and_leaves_lets_the_next_in() -> None:
    room, batcher = room_of(max_bytes=10, max_calls=100)
    inside, large, small = Caller("a", size=6), Caller("b", size=6), Caller("c", size=1)
    assert room.enter(inside)
    assert not room.enter(large)
    assert not room.enter(small)
    assert room.leave(large)
    assert room.admit()
    assert len(room) == 0
    # One that is in the batcher leaves it, too; one that was sent cannot.
    assert room.leave(small)
    assert answer(batcher) == [inside]
    assert not room.leave(inside)


def test_live_callers_go_before_bulk_ones_that_wait() -> None:
    room, batcher = room_of(max_calls=2)
    assert room.enter(Caller("b", bulk=True))
    waiting = Caller("b", bulk=True)
    assert not room.enter(waiting), "half of the room is for live calls"
    live = [Caller("a"), Caller("a")]
    assert room.enter(live[0])
    assert not room.enter(live[1])
    answer(batcher)
    room.admit()
    assert live[1].entry is not None
    assert waiting.entry is None


def test_a_suspect_is_alone_in_its_request_from_the_beginning() -> None:
    room, batcher = room_of(max_batch=8)
    suspect = Caller("a", losses="once")
    assert room.enter(Caller("a"))
    assert room.enter(suspect)
    assert room.enter(Caller("a"))
    assert [len(answer(batcher)) for _ in range(3)] == [1, 1, 1]


_calls = st.builds(Caller, st.sampled_from("abc"), st.booleans(), st.integers(1, 12))


@given(
    st.lists(st.one_of(_calls, st.just("answer"), st.integers(0, 30)), max_size=80),
    st.integers(1, 4),
    st.integers(1, 6),
)
def test_whatever_happens_all_get_in_in_order(
    steps: list[Any], max_batch: int, max_calls: int
) -> None:
    room, batcher = room_of(max_batch=max_batch, max_calls=max_calls, max_bytes=20)
    came: list[Caller] = []
    left: set[Caller] = set()
    answered: list[Caller] = []
    for step in steps:
        if isinstance(step, Caller):
            if step in came:
                continue
            came.append(step)
            room.enter(step)
        elif step == "answer":
            answered += answer(batcher)
        elif step < len(came) and came[step] not in left and came[step] not in answered:
            left.add(came[step])
            room.leave(came[step])
        room.admit()
        statistics = batcher.statistics(0.0)
        assert statistics.waiting + statistics.sent <= max_calls
        assert len(room) + statistics.waiting == len(came) - len(left) - len(answered)
        assert not len(room) or len(batcher), "nobody waits for room beside an empty batcher"
    while len(batcher):
        answered += answer(batcher)
        room.admit()
    assert set(answered) == set(came) - left
    for name in "abc":
        for bulk in (False, True):
            mine = [one for one in came if (one.name, one.bulk) == (name, bulk) and one not in left]
            assert [one for one in answered if one in mine] == mine
