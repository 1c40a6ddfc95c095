"""Slots: what may be asked for, whatever happens in whatever order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mqinfer.flow.slots import STORING, Slots, SparingSlots


@given(
    st.integers(1, 50),
    st.integers(1, 60),
    st.integers(1, 5_000),
    st.integers(1, 1_000),
    st.lists(
        st.tuples(
            st.sampled_from(["ask", "arrive", "end", "handle", "release"]), st.integers(0, 999)
        )
    ),
)
def test_slots_are_never_exceeded_nor_negative(
    most: int, unhandled: int, size: int, largest: int, steps: list[tuple[str, int]]
) -> None:
    slots = Slots(most, size, largest, max_unhandled=unhandled)
    held: list[int] = []
    handled: list[int] = []
    for step, number in steps:
        if step == "ask" and (wanted := slots.available()):
            assert wanted[0] >= 1
            assert wanted[1] >= slots.largest
            slots.ask(*wanted)
        elif step == "arrive" and slots.asked:
            held.append(1 + number % largest)
            slots.arrive(held[-1])
        elif step == "end" and slots.asked:
            slots.withdraw(1 + number % slots.asked, number)
        elif step == "handle" and held:
            handled.append(held.pop(number % len(held)))
            slots.handled()
        elif step == "release" and handled and number % 2:
            slots.release(handled.pop(number % len(handled)), handled=True)
        elif step == "release" and held:
            slots.release(held.pop(number % len(held)))
        assert 0 <= slots.in_flight + slots.asked <= most
        assert len(held) + slots.asked <= 2 * unhandled
        assert slots.free >= 0
        assert slots.asked >= 0
        assert slots.bytes_asked >= 0
        there = held + handled
        assert (slots.in_flight, slots.bytes_in_flight) == (len(there), sum(there))
        if not there and not slots.asked:  # nothing is going on: asking must be possible again
            slots.withdraw(0, slots.bytes_asked)
            assert slots.available() is not None


def test_one_request_takes_at_most_half_of_the_bytes() -> None:
    slots = Slots(10, 1_000, 100)
    assert slots.available() == (10, 500)
    slots.ask(4, 500)
    assert slots.available() == (6, 500)
    slots.ask(3, 450)
    assert slots.available() is None  # 50 bytes are left, and the next message may have 100


def test_the_largest_message_fits_however_little_was_allowed() -> None:
    slots = Slots(10, 5, 100)
    assert slots.max_bytes == 200
    assert slots.available() == (10, 100)


def test_what_is_being_stored_lets_as_many_more_wait() -> None:
    slots = Slots(10, 1_000, 10, max_unhandled=2)
    for _ in range(2):
        slots.ask(1, 10)
        slots.arrive(10)
    assert slots.free == 0
    slots.handled()
    assert slots.free == 2  # the handler's place, and one for what is on its way to the stream
    slots.ask(2, 20)
    slots.arrive(10)
    slots.arrive(10)
    slots.handled()
    slots.handled()
    assert (slots.in_flight, slots.storing) == (4, 3)
    assert slots.free == 3  # at most twice as many as may wait for handlers
    slots.release(10, handled=True)
    assert (slots.in_flight, slots.storing) == (3, 2)


def test_half_free_is_half_of_what_may_be_waiting() -> None:
    slots = Slots(100, 10_000, 10, max_unhandled=4)
    assert slots.half_free
    slots.ask(2, 20)
    assert slots.half_free
    slots.ask(1, 10)
    assert not slots.half_free
    slots.withdraw(1, 10)
    assert slots.half_free


def test_those_of_jobs_ask_for_no_more_while_many_outputs_are_on_their_way() -> None:
    slots = SparingSlots(4 * STORING, 1_000_000, 1)

    def take() -> int:
        wanted = slots.available()
        if wanted is None:
            return 0
        slots.ask(*wanted)
        for _ in range(wanted[0]):
            slots.arrive(1)
        slots.withdraw(0, wanted[1])
        return wanted[0]

    # A slow handler has as many as any.
    while take():
        pass
    assert slots.in_flight == 4 * STORING
    # Once as many as that are being stored there is room for no more, until some are.
    for _ in range(STORING):
        slots.handled()
    for _ in range(2 * STORING):
        slots.release(1)
    assert slots.available() is None
    slots.release(1, handled=True)
    assert slots.free == 1
    assert not slots.half_free
    for _ in range(STORING // 2):
        slots.release(1, handled=True)
    assert slots.half_free
    assert take() == STORING // 2 + 1
