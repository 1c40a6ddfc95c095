"""Dead letters: the whole story of a message, within what the server takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.errors import (
    BadImage,
    DecodeError,
    HandlerTimeout,
    PayloadTooLarge,
    Reject,
    Retry,
    WorkerKilled,
)
from mqinfer.flow import deadletter
from mqinfer.flow.deadletter import MAX_HEADER, MAX_REASON, dead_letter, kind_of
from mqinfer.flow.job import Job
from mqinfer.flow.past import Past
from mqinfer.identity import IDENTITY, MSG_ID, RUN, parse_header_block
from tests.support.flow import Delivered

LIMIT = 1 << 20


def raised(error: BaseException) -> BaseException:
    """The error with a traceback, as a handler's has."""
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


def letter(
    error: BaseException, *, max_payload: int = LIMIT, run: str | None = None, **fields: Any
) -> tuple[dict[str, str], bytes]:
    job = Job(Delivered(**fields), 0.0, 0.0)
    job.open("s", None, None).past = Past(tries=job.delivery.attempt - 1)
    header, payload = dead_letter(job, "s", error, max_payload=max_payload, run=run)
    assert len(header) <= MAX_HEADER + MAX_REASON
    return parse_header_block(header), payload


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DecodeError("x"), "decode"),
        (Reject("x"), "rejected"),
        (BadImage("x"), "rejected"),
        (PayloadTooLarge("x"), "rejected"),
        (HandlerTimeout("x"), "timeout"),
        (WorkerKilled("x"), "killed"),
        (Retry("x"), "failed"),
        (ValueError("x"), "failed"),
    ],
)
def test_kinds(error: BaseException, kind: str) -> None:
    assert kind_of(error) == kind


def test_it_tells_what_happened_and_keeps_the_message() -> None:
    headers, payload = letter(
        raised(ValueError("two\n lines")),
        sequence=7,
        attempt=3,
        data=b"data",
        headers={"X": "y", MSG_ID: "mine", "Nats-Foo": "z", "Mq-Dead-Stage": "earlier"},
    )
    assert payload == b"data"
    assert headers["X"] == "y"
    assert "Nats-Foo" not in headers
    assert headers[IDENTITY] == headers["Mq-Dead-Msg-Id"] == "mine"
    assert headers[MSG_ID] == "dead:s::mine:7"  # of its own, or the stream would drop it
    assert (headers[deadletter.STAGE], headers[deadletter.SUBJECT]) == ("s", "t.number")
    assert (headers[deadletter.STREAM], headers[deadletter.SEQUENCE]) == ("t", "7")
    assert (headers[deadletter.ATTEMPTS], headers[deadletter.KIND]) == ("3", "failed")
    assert (headers[deadletter.ERROR], headers[deadletter.REASON]) == ("ValueError", "two lines")
    assert "in raised" in json.loads(headers[deadletter.TRACEBACK])


def test_of_an_outcome_there_is_no_traceback_and_an_error_without_text_has_its_name() -> None:
    headers, _ = letter(raised(Reject("no")))
    assert deadletter.TRACEBACK not in headers
    headers, _ = letter(KeyError())
    assert headers[deadletter.REASON] == "KeyError"


def test_a_runs_says_whose_it_is() -> None:
    headers, _ = letter(Reject("no"), run="again", headers={IDENTITY: "a"})
    assert (headers[RUN], headers[MSG_ID]) == ("again", "dead:s:again:a:1")


def test_a_strangers_run_is_none() -> None:
    headers, _ = letter(Reject("no"), headers={IDENTITY: "a", RUN: "theirs"})
    assert RUN not in headers


def test_secrets_in_a_url_are_masked() -> None:
    headers, _ = letter(raised(ValueError("no answer from http://me:hidden@host/")))
    assert "hidden" not in headers[deadletter.REASON]
    assert "hidden" not in headers[deadletter.TRACEBACK]


def test_what_does_not_fit_is_left_out_the_story_last() -> None:
    data = b"x" * 4_000
    error = raised(ValueError("r" * 50_000))
    whole, payload = letter(error, data=data)
    assert (len(whole[deadletter.REASON]), payload) == (MAX_REASON, data)
    shorter, payload = letter(error, data=data, max_payload=7_000)
    assert (deadletter.TRACEBACK in shorter, payload) == (False, data)
    least, payload = letter(error, data=data, max_payload=4_500)
    assert (least[deadletter.OMITTED], payload) == ("4000", b"")
    assert least[deadletter.SEQUENCE] == "1"


@given(
    st.dictionaries(
        st.text("abc", min_size=1, max_size=5), st.integers(0, 40_000).map(lambda n: "v" * n)
    )
)
def test_the_largest_headers_are_left_out_and_named(pairs: dict[str, str]) -> None:
    headers, _ = letter(Reject("no"), headers=pairs)
    gone = headers.get(deadletter.HEADERS_OMITTED, "").split()
    assert set(gone) | (set(headers) & set(pairs)) == set(pairs)
    assert not set(gone) & set(headers)
    kept = [len(pairs[name]) for name in set(pairs) - set(gone)]
    assert all(len(pairs[name]) >= max(kept, default=0) for name in gone)
    assert headers[deadletter.REASON] == "no"
