"""What a context counts: the time that a message waits for servers that are down, and progress."""

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mqinfer.context import Context
from mqinfer.flow.job import Job


def context() -> Context:
    return Context(id="1", stage="s", sequence=1)


def working(since: float) -> tuple[Job, Context]:
    """A message whose handler began then, with the context that a worker makes."""
    delivery: Any = SimpleNamespace(headers={}, stream="plants", sequence=1)
    job = Job(delivery, since, since)
    job.started = since
    return job, job.open("s", None, None)


def test_a_wait_is_counted_when_it_is_over_and_while_it_goes_on():
    job, one = working(since=10.0)
    one.pause(11.0)
    assert (one.waiting_since, one.waited, one.waited_by(13.0)) == (11.0, 0.0, 2.0)
    assert job.busy(13.0) == 1.0
    one.resume(14.0)
    assert (one.waiting_since, one.waited, one.waited_by(20.0)) == (None, 3.0, 3.0)
    assert job.busy(20.0) == 7.0


def test_waits_that_overlap_are_one():
    one = context()
    one.pause(1.0)
    one.pause(2.0)
    one.resume(3.0)
    assert one.waiting_since == 1.0
    one.pause(4.0)
    one.resume(5.0)
    one.resume(6.0)
    assert (one.waiting_since, one.waited) == (None, 5.0)


def test_nothing_to_resume_is_no_wait():
    one = context()
    one.resume(5.0)
    one.pause(6.0)
    one.resume(7.0)
    one.resume(8.0)
    assert (one.waiting_since, one.waited) == (None, 1.0)


def test_progress_starts_the_count_anew_also_in_the_middle_of_a_wait():
    job, one = working(since=0.0)
    one.pause(1.0)
    one.resume(4.0)
    one.pause(5.0)
    assert not one.take_progress(6.0)
    one.progress()
    assert one.take_progress(7.0)
    job.started = 7.0  # as the runner does it
    assert not one.take_progress(7.0)
    assert job.busy(9.0) == 0.0
    one.resume(9.0)
    assert job.busy(10.0) == 1.0


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)).map(sorted), max_size=20))
def test_what_was_waited_is_the_union_of_the_waits(waits: list[list[int]]) -> None:
    one = context()
    # Sorting keeps their order: at one moment what begins comes before what ends.
    moments = [(start, one.pause) for start, _ in waits] + [(end, one.resume) for _, end in waits]
    for now, pause_or_resume in sorted(moments, key=lambda moment: moment[0]):
        pause_or_resume(float(now))
    assert one.waiting_since is None
    covered = {second for start, end in waits for second in range(start, end)}
    assert one.waited == len(covered)


def test_a_model_call_behind_others_stops_the_clock_unless_another_is_under_way() -> None:
    one = Context(id="1", stage="s", sequence=1)
    one.model_calls(1.0, 1, 0)
    assert one.waited_by(3.0) == 2.0
    one.model_calls(3.0, 0, 1)  # another one is sent
    assert (one.waiting_since, one.waited) == (None, 2.0)
    one.model_calls(7.0, 0, -1)
    assert one.waited_by(8.0) == 3.0
    one.pause(8.0)  # the server is down
    one.model_calls(9.0, -1, 0)
    assert one.waited_by(10.0) == 5.0
    one.resume(10.0)
    assert (one.waiting_since, one.waited) == (None, 5.0)
