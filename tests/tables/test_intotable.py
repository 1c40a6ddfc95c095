"""A sink's messages: answered when their rows are stored, and only what is refused is a letter."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from mqinfer.backoff import Backoff
from mqinfer.errors import ConflictError, PermissionDenied, Reject, TableError
from mqinfer.flow import deadletter
from mqinfer.flow.job import Job
from mqinfer.identity import ANCESTORS, IDENTITY, MODELS, MSG_ID, STAGE
from mqinfer.message import Row
from mqinfer.ports import Origin
from mqinfer.stage import Limits
from mqinfer.tables import intotable
from mqinfer.tables.intotable import IntoTable
from mqinfer.testing import until
from tests.support.flow import Delivered


class Grade(Row, table="grade", order_by="n"):
    n: int


class Sink:
    """Stores rows, refuses some, or raises what it is to, as often as it is to."""

    schema = SimpleNamespace(name="grade")
    blocked: str | None = None

    def __init__(self, *errors: Exception, refuses: dict[int, str] | None = None):
        self.errors = list(errors)
        self.refuses = refuses or {}
        self.written: list[tuple[Row, Origin]] = []
        self.trouble: str | None = None
        self.told: list[str] = []
        self.forgotten = 0

    async def write(self, rows: Sequence[tuple[Row, Origin]]) -> dict[int, str]:
        if self.trouble:
            self.told.append(self.trouble)
        if self.errors:
            raise self.errors.pop(0)
        self.written += [row for place, row in enumerate(rows) if place not in self.refuses]
        return self.refuses

    def forget(self) -> None:
        self.forgotten += 1


class Stage:
    """A sink's handling, and what came of each message."""

    def __init__(self, sink: Sink):
        self.sink = sink
        self.answered: list[int] = []
        self.failed: dict[int, BaseException] = {}
        settler: Any = SimpleNamespace(answered=self._answered, failed=self._failed)
        self.handling = IntoTable(sink, settler, Limits(batch_size=7, batch_wait=0.5))  # type: ignore[arg-type]

    def _answered(self, job: Job, outputs: Sequence[object]) -> None:
        assert not outputs
        self.answered.append(job.delivery.sequence)

    def _failed(self, job: Job, error: BaseException) -> None:
        self.failed[job.delivery.sequence] = error


def job_of(sequence: int, **headers: str) -> Job:
    job = Job(Delivered(sequence, headers=headers, published=1_000 + sequence), 0.0, 0.0)
    job.open("sink-grade", None, None)
    job.message = Grade(sequence)
    return job


async def test_rows_say_where_they_come_from() -> None:
    stage = Stage(Sink())
    told = {IDENTITY: "s:1:0", ANCESTORS: "a s:1", STAGE: "grade", MODELS: "m=2"}
    await stage.handling.run([job_of(4, **told), job_of(5)])
    assert stage.answered == [4, 5]
    assert stage.sink.written == [
        (
            Grade(4),
            Origin("s:1:0", ("a", "s:1"), "grade", "", {"m": "2"}, sequence=4, published=1_004),
        ),
        (Grade(5), Origin("t:5", sequence=5, published=1_005)),
    ]


async def test_only_those_that_are_refused_are_rejected() -> None:
    stage = Stage(Sink(refuses={1: "column 'n': no"}))
    await stage.handling.run([job_of(1), job_of(2), job_of(3)])
    assert stage.answered == [1, 3]
    assert [(type(error), str(error)) for error in stage.failed.values()] == [
        (Reject, "column 'n': no")
    ]


@pytest.mark.parametrize("error", [TableError("x"), ConflictError("x"), PermissionDenied("x")])
async def test_what_an_operator_has_to_mend_costs_no_attempt(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intotable, "MEND", Backoff(initial=0.0, jitter=0.0))
    sink = Sink(error, error, error)
    stage = Stage(sink)
    await stage.handling.run([job_of(1)])
    assert stage.answered == [1]
    assert stage.failed == {}
    assert sink.told == ["table grade: x"] * 3  # readiness says so meanwhile
    assert sink.trouble is None
    assert sink.forgotten == 3, "the table may have to be made again"


async def test_what_waits_for_an_operator_is_handed_back_at_a_stop() -> None:
    sink = Sink(*[TableError("x")] * 100)
    stage = Stage(sink)
    task = asyncio.create_task(stage.handling.run([job_of(1)]))
    await until(lambda: sink.trouble is not None, "it waits")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (stage.answered, stage.failed) == ([], {})


async def test_what_is_no_fault_of_rows_or_operators_goes_up() -> None:
    """A fault of ours: the runner gives the messages back, and says so."""
    stage = Stage(Sink(RuntimeError("x")))
    with pytest.raises(RuntimeError):
        await stage.handling.run([job_of(1)])
    assert (stage.answered, stage.failed) == ([], {})


def test_it_is_as_wide_as_its_limits() -> None:
    handling = Stage(Sink()).handling
    assert (handling.batch_size, handling.batch_wait, handling.blocked) == (7, 0.5, None)


def test_a_dead_letters_row_goes_by_its_own_id() -> None:
    """Two stages may give up on one message."""
    letter = Delivered(
        9,
        b"data",
        {
            MSG_ID: "dead:s::mine:7",
            IDENTITY: "mine",
            deadletter.STAGE: "s",
            deadletter.SEQUENCE: "7",
        },
        published=1_700_000_000_000_000_000,
    )
    row = intotable.dead_letter_row("t", letter)  # type: ignore[arg-type]
    assert (row.app, row.stage, row.sequence, row.message_id) == ("t", "s", 7, "mine")
    job = Job(letter, 0.0, 0.0)
    job.open("sink-mqinfer_dead_letters", None, None)
    job.message = row
    _, origin = intotable._row(job)
    assert (origin.id, origin.run) == ("dead:s::mine:7", "")


def test_what_lies_among_the_dead_letters_and_is_none_is_rejected() -> None:
    with pytest.raises(Reject, match="no dead letter of mqinfer"):
        intotable.dead_letter_row("t", Delivered(9, b"?"))  # type: ignore[arg-type]
