"""Records are stored together, each message is told once, and only when all of its own are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.errors import Unavailable
from mqinfer.flow.job import Job
from mqinfer.flow.recording import Recording
from tests.support.flow import Delivered, Double, FakeBroker


class Recorder:
    """Records that are as long, and below as many roots, as the test says; turns that it ends.

    A record is a list of parts; `records` has those of a message by its sequence.
    """

    largest = 10

    def __init__(self) -> None:
        self.records: dict[int, list[tuple[str, list[bytes]]]] = {}
        self.turn: Callable[[], None] | None = None

    def soon(self, call: Callable[[], None]) -> None:
        assert self.turn is None, "one look a turn"
        self.turn = call

    def ends(self) -> None:
        """The turn of the loop ends."""
        call, self.turn = self.turn, None
        if call is not None:
            call()

    def ended(self, job: Job, *_: object) -> Any:
        return self.records.get(job.delivery.sequence, [])

    def encoded(self, record: list[bytes]) -> list[bytes]:
        return record

    def message(self, root: str, records: Sequence[bytes]) -> tuple[bytes, bytes, bytes]:
        return root.encode(), b"", b"+".join(records)


class AtOnce:
    """Whoever waits is told at once, where the test says so."""

    def __init__(self, *, able: bool = True):
        self.able = able
        self.told: list[Callable[[bool], None]] = []

    def tell(self, root: object, one: object, told: Callable[[bool], None]) -> bool:
        if self.able:
            self.told.append(told)
        return self.able


class Stage:
    """Recording over a broker that answers when the test says so."""

    def __init__(self, at_once: AtOnce | None = None):
        self.recorder = Recorder()
        self.broker = FakeBroker()
        self.recording: Any = Recording(self.recorder, self.broker, at_once)  # type: ignore[arg-type]
        self.went_on: list[tuple[int, Exception | None]] = []

    def ends(self, sequence: int, *records: Any, outcome: str = "answered", **fields: Any) -> Job:
        """A message ends; its records are pairs of root and record, or parts of one."""
        self.recorder.records[sequence] = [
            (root, [record] if isinstance(record, bytes) else record) for root, record in records
        ]
        job = Job(Delivered(sequence, **fields), 0.0, 0.0)
        job.unpublished = 1 if outcome == "answered" else 2  # whoever calls it, and `answered`
        self.store(job, outcome)
        return job

    def store(self, job: Job, outcome: str) -> None:
        sequence = job.delivery.sequence

        def then(problem: Exception | None) -> None:
            self.went_on.append((sequence, problem))

        self.recording.store(job, outcome, None, then)

    def sent(self) -> list[tuple[str, bytes]]:
        return [(one.subject, one.payload) for one in self.broker.published]


def test_below_no_root_nothing_is_stored() -> None:
    stage = Stage()
    job = stage.ends(1)
    assert stage.went_on == [(1, None)]
    assert stage.sent() == []
    assert job.recorded
    assert job.unpublished == 1


def test_what_ends_in_one_turn_leaves_together_by_root() -> None:
    stage = Stage()
    stage.ends(1, ("a", b"1"), ("b", b"1"))
    stage.ends(2, ("a", b"2"))
    assert stage.sent() == []
    stage.recorder.ends()
    assert stage.sent() == [("a", b"1+2"), ("b", b"1")]
    stage.broker.answer(0)
    assert stage.went_on == [(2, None)], "the first waits for its record of the other root"
    stage.broker.answer(0)
    assert stage.went_on == [(2, None), (1, None)]
    # The next turn is one of its own.
    stage.ends(3, ("a", b"3"))
    stage.recorder.ends()
    assert stage.sent()[2:] == [("a", b"3")]


def test_who_shares_a_message_shares_its_fate() -> None:
    stage = Stage()
    stage.ends(1, ("a", b"1"))
    stage.ends(2, ("a", b"2"), ("b", b"2"))
    stage.recorder.ends()
    problem = Unavailable("gone")
    stage.broker.answer(0, error=problem)
    assert stage.went_on == [(1, problem)]
    stage.broker.answer(0)
    assert stage.went_on == [(1, problem), (2, problem)]


def test_no_more_leaves_together_than_a_message_holds() -> None:
    stage = Stage()
    for sequence, record in enumerate([b"123456", b"1234", b"1", b"x" * 50, b"2"], 1):
        stage.ends(sequence, ("a", record))
    assert stage.sent() == [("a", b"123456+1234"), ("a", b"1"), ("a", b"x" * 50)]
    stage.recorder.ends()
    assert stage.sent()[3:] == [("a", b"2")]
    stage.broker.answer_all()
    assert stage.went_on == [(number, None) for number in range(1, 6)]


def test_a_record_in_parts_is_stored_when_all_of_them_are() -> None:
    stage = Stage()
    stage.ends(1, ("a", [b"12345678", b"12345678", b"123"]))
    stage.recorder.ends()
    problem = Unavailable("gone")
    stage.broker.answer(2)
    stage.broker.answer(0, error=problem)
    assert stage.went_on == []
    stage.broker.answer(0, error=Unavailable("later"))
    assert stage.went_on == [(1, problem)]


@pytest.mark.parametrize("outcome", ["failed", "dead"])
def test_what_left_early_is_waited_for_before_a_failure_is_recorded(outcome: str) -> None:
    stage = Stage()
    job = Job(Delivered(1), 0.0, 0.0)
    job.noted = [(0, Double(1))]
    job.unpublished = 3  # one output is on its way
    stage.recorder.records[1] = [("a", [b"1"])]
    stage.store(job, outcome)
    assert stage.recorder.turn is None
    assert job.after is not None
    job.unpublished -= 1
    job.after()
    stage.recorder.ends()
    assert stage.sent() == [("a", b"1")]
    assert job.noted is not None


def test_where_one_that_left_early_is_not_stored_none_is_told_of() -> None:
    stage = Stage()
    job = Job(Delivered(1), 0.0, 0.0)
    job.noted, job.unpublished, job.problem = [(0, Double(1))], 2, Unavailable("gone")
    stage.store(job, "failed")
    assert job.noted is None


def test_who_can_be_told_at_once_needs_no_record() -> None:
    at_once = AtOnce()
    stage = Stage(at_once)
    job = stage.ends(1, ("a", b"1"))
    assert stage.went_on == []
    at_once.told.pop()(True)
    assert stage.went_on == [(1, None)]
    assert stage.sent() == []
    assert job.unpublished == 2, "nothing else settles it meanwhile"
    # Whoever waited is gone: it is stored.
    stage.ends(2, ("a", b"2"))
    at_once.told.pop()(False)
    stage.recorder.ends()
    assert stage.sent() == [("a", b"2")]


@pytest.mark.parametrize(
    ("records", "fields"),
    [
        ([("a", b"1"), ("b", b"1")], {}),
        ([("a", b"1")], {"attempt": 2}),
        ([("a", b"1")], {"outcome": "failed"}),
        ([("a", b"1")], {"outcome": "dead"}),
    ],
    ids=["two-roots", "came-before", "failed", "dead"],
)
def test_only_a_first_answer_below_one_root_is_told_at_once(
    records: Any, fields: dict[str, Any]
) -> None:
    at_once = AtOnce()
    stage = Stage(at_once)
    stage.ends(1, *records, **fields)
    assert at_once.told == []
    stage.recorder.ends()
    assert len(stage.sent()) == len(records)


def test_where_nobody_can_be_told_at_once_it_is_stored() -> None:
    stage = Stage(AtOnce(able=False))
    stage.ends(1, ("a", b"1"))
    stage.recorder.ends()
    assert stage.sent() == [("a", b"1")]


_record = st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=3)
_records = st.lists(
    st.tuples(st.sampled_from("abc"), _record), max_size=3, unique_by=lambda r: r[0]
)


@given(st.lists(st.one_of(_records, st.just("turn"), st.tuples(st.integers(0, 9), st.booleans()))))
def test_each_goes_on_once_when_all_of_its_own_is_answered(steps: list[Any]) -> None:
    stage = Stage()
    parts: dict[int, int] = {}
    for step in steps:
        if step == "turn":
            stage.recorder.ends()
        elif isinstance(step, tuple):
            which, works = step
            if which < len(stage.broker.unanswered):
                stage.broker.answer(which, error=None if works else Unavailable("gone"))
        else:
            sequence = len(parts) + 1
            parts[sequence] = sum(len(record) for _, record in step)
            stage.ends(sequence, *step)
            assert not parts[sequence] or sequence not in dict(stage.went_on)
    stage.recorder.ends()
    assert sum(parts.values()) <= sum(payload.count(b"+") + 1 for _, payload in stage.sent())
    stage.broker.answer_all()
    assert sorted(sequence for sequence, _ in stage.went_on) == sorted(parts)
