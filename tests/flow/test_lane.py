"""Lane: no suspect is ever at work with more than it allows, and each has its turn."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mqinfer.flow.lane import WIDE, Lane, Room, Suspect
from mqinfer.testing import until


class Track:
    """A lane, and who is in it."""

    def __init__(self) -> None:
        self.lane = Lane(gather=0.0)
        self.inside: list[Suspect] = []

    def enter(self, width: int, room: Room | None = None) -> Suspect:
        job: Any = object()
        suspect = Suspect(job, width, 0, room or Room(WIDE), self.inside.append)
        self.lane.enter(suspect)
        return suspect

    def leave(self, suspect: Suspect) -> None:
        if suspect in self.inside:
            self.inside.remove(suspect)
        self.lane.leave(suspect)


def test_those_that_allow_all_are_all_at_work() -> None:
    track = Track()
    for _ in range(100):
        track.enter(WIDE)
    assert len(track.inside) == 100
    assert track.lane.most == 128


def test_one_that_must_be_alone_waits_and_shuts_out_the_others() -> None:
    track = Track()
    wide = [track.enter(WIDE) for _ in range(3)]
    alone = track.enter(1)
    assert track.inside == wide
    group = track.lane.group
    for one in wide:
        track.leave(one)
    assert track.inside == [alone]
    assert track.lane.group != group
    assert track.lane.most == 1
    late = track.enter(WIDE)
    assert track.inside == [alone]
    track.leave(alone)
    assert track.inside == [late]


def test_the_widest_go_first() -> None:
    track = Track()
    first = track.enter(1)
    narrow = [track.enter(2) for _ in range(2)]
    wide = [track.enter(WIDE) for _ in range(3)]
    track.leave(first)
    assert track.inside == wide
    track.leave(wide[0])
    assert track.inside == wide[1:]  # a narrow one allows one beside it
    track.leave(wide[1])
    assert track.inside == [wide[2], narrow[0]]
    track.leave(narrow[1])  # it waited, and is given up
    track.leave(wide[2])
    assert track.inside == [narrow[0]]


def test_a_stage_has_no_more_in_it_than_its_handlers_take() -> None:
    track = Track()
    room = Room(1)
    one, two = track.enter(WIDE, room), track.enter(WIDE, room)
    other = track.enter(WIDE)
    assert track.inside == [one, other]
    track.leave(one)
    assert track.inside == [other, two]


async def test_the_first_wait_for_those_that_come_with_them() -> None:
    track = Track()
    track.lane = Lane(gather=1000.0)
    narrow, wide = track.enter(1), [track.enter(WIDE) for _ in range(2)]
    track.leave(track.enter(1))
    assert track.inside == []
    track.lane.gathered()
    assert track.inside == wide
    late = track.enter(WIDE)
    assert track.inside == [*wide, late]
    for one in (*wide, late):
        track.leave(one)
    assert track.inside == [narrow]


async def test_the_first_wait_no_longer_than_a_moment() -> None:
    track = Track()
    track.lane = Lane(gather=0.01)
    one = track.enter(1)
    await until(lambda: track.inside == [one], "its turn")


@given(
    st.lists(
        st.tuples(st.sampled_from(["enter", "enter", "leave"]), st.integers(0, 10)), max_size=80
    )
)
def test_nobody_is_with_more_than_it_allows(steps: list[tuple[str, int]]) -> None:
    track = Track()
    rooms = [Room(1 + number) for number in range(3)]
    there: list[Suspect] = []
    for step, number in steps:
        if step == "enter":
            there.append(track.enter(1 << number, rooms[number % 3]))
        elif there:
            track.leave(there.pop(number % len(there)))
        inside = track.inside
        assert all(len(inside) <= one.width for one in inside)
        assert len(inside) <= track.lane.most or not inside
        assert not there or inside  # never does everyone wait
        for room in rooms:
            assert room.taken == sum(one.room is room for one in inside) <= room.handlers
    while there:
        assert track.inside
        one = track.inside[0]
        there.remove(one)
        track.leave(one)
    assert not track.inside
