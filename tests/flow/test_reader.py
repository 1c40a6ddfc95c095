"""Reader: whose a message is, and what a handler is given of it."""

from __future__ import annotations

from typing import Any

import pytest

from mqinfer.errors import Reject
from mqinfer.flow.job import Job
from mqinfer.flow.reader import Reader
from mqinfer.identity import IDENTITY, MSG_ID, ONLY, RUN, retry_id
from tests.support.flow import Delivered, Number


def decode(delivery: object) -> Number:
    raise Reject("it is none")


STATE = object()


def read(reader: Reader, **headers: str) -> tuple[bool, Job]:
    job = Job(Delivered(5, headers=headers), 0.0, 0.0)
    return reader.read(job), job


def test_a_message_is_decoded_and_has_its_context() -> None:
    reader = Reader("s", "s-p3", lambda delivery: Number(delivery.sequence), STATE)
    mine, job = read(reader, X="y")
    assert (mine, job.message) == (True, Number(5))
    assert job.context is not None
    assert (job.context.stage, job.context.state, job.context.headers) == ("s", STATE, {"X": "y"})
    assert job.context.run is None


BACK = {MSG_ID: retry_id("dead.t.other", 3, "2026-05-01T00:00:00+00:00"), IDENTITY: "i"}


def shared(**fields: Any) -> Reader:
    """A reader whose messages are read by `other` as well."""
    readers = frozenset({"s", "other"})
    return Reader("s", "s", lambda _: Number(1), app="t", readers=readers, **fields)


def test_one_that_was_sent_back_to_another_consumer_is_not_decoded() -> None:
    mine, job = read(shared(), **BACK, **{ONLY: "other"})
    assert (mine, job.message) == (False, None)
    assert job.id == "i"  # it can be told in a log


@pytest.mark.parametrize(
    "headers",
    [
        {ONLY: "other"},
        {ONLY: "other", MSG_ID: "p1", IDENTITY: "i"},
        {ONLY: "other", MSG_ID: retry_id("dead.another.other", 3, "2026")},
        {**BACK, ONLY: "nobody"},  # a stage that was renamed meanwhile
        {**BACK, ONLY: ""},
    ],
    ids=str,
)
def test_what_a_stranger_copied_hides_no_message(headers: dict[str, str]) -> None:
    mine, job = read(shared(), **headers)
    assert (mine, job.message) == (True, Number(1))


FOREIGN = {
    MSG_ID: "theirs",
    IDENTITY: "theirs too",
    "Mq-Ancestors": "a b",
    "Mq-Models": "leaf=3",
    RUN: "r",
    ONLY: "other",
    "X": "y",
}


def test_foreign_ids_are_none_where_a_type_says_so() -> None:
    mine, job = read(shared(foreign_ids=False), **FOREIGN)
    assert mine
    assert (job.id, job.ancestors) == ("t:5", ())
    assert job.context is not None
    assert (job.context.models, job.context.run) == ({}, None)
    assert job.context.headers == {MSG_ID: "theirs", "X": "y", IDENTITY: "t:5"}
    assert read(shared(foreign_ids=False))[1].id == "t:5"


def test_a_dead_letter_that_was_sent_back_keeps_its_identity_all_the_same() -> None:
    _, job = read(shared(foreign_ids=False), **{**BACK, IDENTITY: "t:2"})
    assert job.id == "t:2"


def test_one_for_this_consumer_is() -> None:
    reader = Reader("s", "s-run", lambda _: Number(1))
    assert read(reader, **{ONLY: "s-run"})[0]


def test_the_run_is_its_own_and_never_that_of_a_header() -> None:
    for own, header, expected in (("a", "b", "a"), (None, "b", None), ("a", None, "a")):
        reader = Reader("s", "s", lambda _: Number(1), run=own)
        _, job = read(reader, **({RUN: header} if header else {}))
        assert job.context is not None
        assert job.context.run == expected


def test_what_cannot_be_decoded_has_its_context_all_the_same() -> None:
    job = Job(Delivered(5), 0.0, 0.0)
    with pytest.raises(Reject, match="it is none"):
        Reader("s", "s", decode).read(job)
    assert job.context is not None
