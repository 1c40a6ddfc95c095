"""What a queue keeps of a caller: when the clock of its handler runs, and how often it was lost."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.context import Context
from mqinfer.errors import ModelError
from mqinfer.inference.calls import BLOCKED, OVER, QUEUED, SENT, Call, Losses, Stand
from tests.support.inference import DOUBLE, x


def call(context: Context | None = None) -> Call:
    return Call(DOUBLE, {"x": x(1.0)}, context)


def message() -> Context:
    return Context(id="a", stage="s", sequence=1)


# --- the clock of the handler ---------------------------------------------------------------------

steps = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(Stand), st.integers(0, 3)), max_size=25
)


def stands_still(stands: list[Stand]) -> bool:
    """By the words of `Stand`: one is blocked, or one is queued and none is under way."""
    return BLOCKED in stands or (QUEUED in stands and SENT not in stands)


@given(steps)
def test_the_clock_stops_while_no_call_of_the_message_is_under_way(
    steps: list[tuple[int, Stand, int]],
) -> None:
    async def check() -> None:
        context = message()
        calls = [call(context) for _ in range(3)]
        stands = [OVER] * 3
        now, waited = 10, 0
        for number, stand, seconds in steps:
            calls[number].stands(stand, now)
            stands[number] = stand
            now += seconds
            waited += seconds * stands_still(stands)
            assert context.waited_by(now) == waited
        for one in calls:
            one.stands(OVER, now)
        assert context.waiting_since is None, "what is over leaves no clock stopped"
        assert context.waited_by(now + 100) == waited

    asyncio.run(check())


@pytest.mark.parametrize(
    ("way", "waited"),
    [
        ((QUEUED, SENT, OVER), 1.0),
        ((QUEUED, BLOCKED, QUEUED, SENT, OVER), 3.0),
        ((SENT, BLOCKED, SENT, OVER), 1.0),
        ((SENT, QUEUED, OVER), 1.0),
        ((QUEUED, QUEUED, QUEUED, OVER), 3.0),
    ],
)
async def test_the_ways_of_one_call(way: tuple[Stand, ...], waited: float) -> None:
    context = message()
    one = call(context)
    for second, stand in enumerate(way):
        one.stands(stand, float(second))
    assert (context.waited, context.waiting_since) == (waited, None)


async def test_a_call_of_no_message_stops_no_clock() -> None:
    one = call()
    for before, after in pairwise(Stand):
        one.stands(before, 1.0)
        one.stands(after, 2.0)
    assert one.context is None


# --- its answer -----------------------------------------------------------------------------------


async def test_a_caller_is_answered_once() -> None:
    one = call()
    one.succeed({"y": x(2.0)})
    one.fail(ModelError("too late"))
    one.succeed({"y": x(3.0)})
    assert (await one.future)["y"] == x(2.0)
    other = call()
    other.fail(ModelError("refused"))
    other.succeed({"y": x(2.0)})
    with pytest.raises(ModelError, match="refused"):
        await other.future


async def test_a_caller_that_waits_no_more_is_told_nothing() -> None:
    one = call()
    one.future.cancel()
    one.succeed({"y": x(2.0)})
    one.fail(ModelError("refused"))
    assert one.future.cancelled()


# --- losses ---------------------------------------------------------------------------------------


def test_who_is_lost_three_times_in_five_seconds_is_at_fault() -> None:
    losses = Losses()
    assert [losses.again(life, now) for life, now in ((0, 0.0), (1, 2.0), (2, 4.0), (3, 5.0))] == [
        False,
        False,
        False,  # too soon: one that died of another item takes seconds to start
        True,
    ]


def test_a_model_that_stays_down_is_nobodys_fault() -> None:
    losses = Losses()
    assert not any(losses.again(7, float(now)) for now in range(100))
    assert losses.count == 1


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), max_size=20))
def test_a_loss_counts_where_something_was_heard_since_the_one_before(
    steps: list[tuple[int, int]],
) -> None:
    losses = Losses()
    now = lives = 0
    counted: list[int] = []  # when
    last: int | None = None
    for more, seconds in steps:
        now += seconds
        lives += more
        fault = losses.again(lives, float(now))
        if lives != last:
            counted.append(now)
            assert fault == (len(counted) >= 3 and now - counted[0] >= 5)
        else:
            assert not fault
        last = lives
        assert losses.count == len(counted)
