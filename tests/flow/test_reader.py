"""Reader: whose a message is, and what a handler is given of it."""

from __future__ import annotations

import pytest

from mqinfer.errors import Reject
from mqinfer.flow.job import Job
from mqinfer.flow.reader import Reader
from mqinfer.identity import ONLY, RUN
from tests.support.flow import Delivered, Number


def decode(delivery: object) -> Number:
    raise Reject("it is none")


STATE = object()


def read(reader: Reader, **headers: str) -> tuple[bool, Job]:
    job = Job(Delivered(5, headers=headers), 0.0)
    return reader.read(job), job


def test_a_message_is_decoded_and_has_its_context() -> None:
    reader = Reader("s", "s-p3", lambda delivery: Number(delivery.sequence), STATE)
    mine, job = read(reader, X="y")
    assert (mine, job.message) == (True, Number(5))
    assert job.context is not None
    assert (job.context.stage, job.context.state, job.context.headers) == ("s", STATE, {"X": "y"})
    assert job.context.run is None


def test_one_for_another_consumer_is_not_decoded() -> None:
    mine, job = read(Reader("s", "s-run", decode), **{ONLY: "s"})
    assert (mine, job.message) == (False, None)
    assert job.id == "t:5"  # it can be told in a log


def test_one_for_this_consumer_is() -> None:
    reader = Reader("s", "s-run", lambda _: Number(1))
    assert read(reader, **{ONLY: "s-run"})[0]


def test_the_run_is_its_own_or_that_of_the_message() -> None:
    for own, header, expected in (("a", "b", "a"), (None, "b", "b"), ("a", None, "a")):
        reader = Reader("s", "s", lambda _: Number(1), run=own)
        _, job = read(reader, **({RUN: header} if header else {}))
        assert job.context is not None
        assert job.context.run == expected


def test_what_cannot_be_decoded_has_its_context_all_the_same() -> None:
    job = Job(Delivered(5), 0.0)
    with pytest.raises(Reject, match="it is none"):
        Reader("s", "s", decode).read(job)
    assert job.context is not None
