"""The state of a job, whatever happens to it in whatever order: each chunk is counted once."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mqinfer.jobs import chunk
from mqinfer.jobs import state as states
from mqinfer.jobs.state import GRACE, LONG, LOST, WIDTH, Counts, State


def begun(chunks: int, max_failures: int = -1) -> State:
    parts, again = states.blank(chunks)
    return State(
        id="job-grade-" + "0" * 32,
        endpoint="grade",
        created=0.0,
        deadline=1e6,
        expires=2e6,
        keep=1e6,
        lasts=1e6,
        fingerprint="",
        folder="",
        rows=chunks,
        chunks=chunks,
        parts=parts,
        again=again,
        max_failures=max_failures,
    )


class Driven(RuleBasedStateMachine):
    """Several drivers and trackers, each of which may do anything again, or late, or never."""

    @initialize(chunks=st.integers(0, 30), most=st.integers(-1, 5))
    def begin(self, chunks: int, most: int) -> None:
        self.state = begun(chunks, most)
        self.now = 0.0
        self.truth: dict[int, Counts] = {}  # of each chunk, what its newest part says
        self.given: set[tuple[int, int]] = set()  # rounds and chunks that somebody was to publish

    def become(self, after: State) -> None:
        """What is kept is what is written, and read again."""
        self.state = states.decode(states.encode(after))
        assert self.state == after

    @rule(seconds=st.floats(0, 2 * LOST))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def claim(self) -> None:
        after, mine = states.claimed(self.state, self.now)
        assert len(after.flight) <= WIDTH
        assert len({one.number for one in after.flight}) == len(after.flight)
        for number in mine:
            assert states.waits(after, after.round, number)
            assert states.part_of(after, number) != after.round
            self.given.add((after.round, number))
        assert not mine or self.state.open
        assert states.claimed(after, self.now)[1] == ()  # another finds nothing left to do
        self.become(after)

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def publish(self, data: Any) -> None:
        turn, number = data.draw(st.sampled_from(sorted(self.given)))
        self.become(states.published(self.state, turn, number))

    @precondition(lambda self: self.given)
    @rule(data=st.data(), end=st.sampled_from(["succeeded", "partial", "failed"]))
    def tell(self, data: Any, end: str) -> None:
        turn, number = data.draw(st.sampled_from(sorted(self.given)))
        before = self.truth.get(number, Counts())
        counts = Counts(**{end: 1})
        counted = states.waits(self.state, turn, number)
        after = states.done(
            *(self.state, turn, number, counts.plus(before, -1)),
            again=end != "succeeded",
            now=self.now,
        )
        assert (after != self.state) == counted
        if counted:
            self.truth[number] = counts
            assert states.part_of(after, number) == turn
            once_more = states.done(after, turn, number, counts, again=True, now=self.now)
            assert once_more is after
        self.become(after)

    @rule(why=st.sampled_from(["canceled", "expired"]))
    def stop(self, why: states.Stop) -> None:
        after = states.stopped(self.state, why, self.now)
        assert states.claimed(after, self.now)[1] == ()
        self.become(after)

    @rule()
    def break_off(self) -> None:
        if self.state.stopping is not None and self.now >= self.state.stopped + GRACE:
            self.become(states.put_back(self.state, self.state.round, self.state.flight))

    @rule()
    def end(self) -> None:
        if states.complete(self.state) or states.overdue(self.state, self.now):
            after = states.ended(self.state, self.now)
            assert not after.open
            assert states.ended(after, self.now + 1) is after
            if self.state.stopping is None and states.complete(self.state):
                assert 0 not in after.parts
                if after.status == "completed":
                    assert after.counts.succeeded == after.rows
            self.become(after)

    @rule()
    def retry(self) -> None:
        before = self.state
        after = states.retried(before, self.now)
        assert (after is not before) == states.can_retry(before)
        if after is not before:
            assert after.open
            assert after.counts == before.counts
            assert not states.complete(after)
        self.become(after)

    @invariant()
    def each_row_is_counted_once(self) -> None:
        if not hasattr(self, "state"):
            return
        total = Counts()
        for counts in self.truth.values():
            total = total.plus(counts)
        assert self.state.counts == total
        assert self.state.counts.rows <= self.state.rows
        assert self.state.open or not self.state.flight


TestDriven = Driven.TestCase


@given(st.integers(0, 100), st.integers(1, 3))
def test_a_job_that_is_driven_comes_to_its_end(chunks: int, rounds: int) -> None:
    state = begun(chunks)
    for _ in range(rounds):
        steps = 0
        while not states.complete(state):
            steps += 1
            assert steps <= chunks + 1
            state, mine = states.claimed(state, 0.0)
            assert len(mine) <= WIDTH
            turn = state.round
            for number in mine:
                before = Counts(failed=1) if turn else Counts()
                change = Counts(failed=1).plus(before, -1)
                state = states.done(state, turn, number, change, again=True, now=0.0)
        state = states.ended(state, 1.0)
        assert state.status == ("failed" if chunks else "completed")
        assert state.counts == Counts(failed=chunks)
        state = states.retried(state, 2.0)
        if not chunks:  # nothing can be tried again
            assert not state.open
            break


def test_more_failures_than_may_be_stop_it() -> None:
    state, mine = states.claimed(begun(20, max_failures=2), 0.0)
    for number in mine[:2]:
        state = states.done(state, 0, number, Counts(failed=1), again=True, now=1.0)
        assert state.stopping is None
    state = states.done(state, 0, mine[2], Counts(failed=1), again=True, now=1.0)
    assert state.stopping == "failed"
    assert states.claimed(state, 100.0) == (state, ())
    assert not states.overdue(state, 1.0)
    assert states.overdue(state, 1.0 + LONG)
    ended = states.ended(state, 2.0)
    assert (ended.status, ended.flight, ended.expires) == ("failed", (), 2.0 + state.keep)


def test_of_a_job_that_never_ended_whoever_looks_ends_it() -> None:
    state = msgspec.structs.replace(begun(3), deadline=5.0)
    assert not states.overdue(state, 5.0)
    assert states.overdue(state, 5.0 + LONG)


@given(st.integers(1, 5_000), st.integers(0, 10_000))
def test_chunks_grow_to_their_most(most: int, number: int) -> None:
    rows = chunk.rows_of(number, most)
    assert 1 <= rows <= most
    assert rows <= chunk.rows_of(number + 1, most)
    assert chunk.rows_of(chunk.OF_A_SIZE * 12, most) == most


def test_no_state_is_dropped_before_those_that_it_replaces() -> None:
    # Else nats-server, killed in between, has the one before again.
    state = begun(1)
    goes = [states.lives(state, 0.0)]
    for now, change in (
        (3e6, lambda one, now: states.stopped(one, "expired", now)),
        (3.1e6, states.ended),
        (3.2e6, states.retried),
        (3.3e6, lambda one, now: states.stopped(one, "canceled", now)),
        (3.4e6, states.ended),
        (3.5e6, states.forgotten),
    ):
        state = change(state, now)
        goes.append(now + states.lives(state, now))
    assert state.round == 1
    assert goes == sorted(goes)
