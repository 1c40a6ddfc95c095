"""Publisher: every publish is done exactly once, whatever comes back, and whenever."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mqinfer.adapters.jetstream import JetStream
from mqinfer.adapters.publisher import (
    ACK_TIMEOUT,
    MAX_OUTSTANDING,
    MAX_OUTSTANDING_BYTES,
    MAX_SUBJECT,
    RETRY,
    Publisher,
    WrongRevision,
)
from mqinfer.errors import PayloadTooLarge, PermissionDenied, PublishError, PublishTimeout
from mqinfer.flow.publishing import publish_stored
from mqinfer.identity import MSG_ID, header_block
from mqinfer.ports import StreamSpec
from mqinfer.settings import Settings
from mqinfer.testing import until

HEADER = header_block({MSG_ID: "id"})
STORED = b'{"stream":"s","seq":1}'
REPEAT = b'{"stream":"s","seq":1,"duplicate":true}'


def refusal(code: int, text: str, status: int = 400) -> bytes:
    error = {"code": status, "err_code": code, "description": text}
    return json.dumps({"error": error, "stream": "s", "seq": 0}).encode()


FULL = refusal(10077, "maximum messages exceeded", 503)


class Wire:
    """A publisher, the bytes it wrote, and a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.connected = True
        self.written: list[bytes] = []
        self.results: list[tuple[Exception | None, bool]] = []
        self.publisher = Publisher(
            "_INBOX.p", self.written.append, lambda: self.connected, lambda: self.now
        )

    def publish(self, subject: bytes = b"s.x", timeout: float | None = None) -> None:
        self.publisher.publish(
            subject, HEADER, b"data", lambda *result: self.results.append(result), timeout
        )

    def answer(self, data: bytes, number: int = 1) -> None:
        self.publisher.on_ack(b"_INBOX.p.%d" % number, b"", data, None)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.publisher.tick(self.now)

    @property
    def error(self) -> Exception:
        """How the only publish ended."""
        ((error, repeat),) = self.results
        assert error is not None
        assert not repeat
        return error


@pytest.fixture
def wire() -> Wire:
    return Wire()


# --- acknowledgements -----------------------------------------------------------------------------


def test_what_is_written_is_the_protocol(wire: Wire) -> None:
    wire.publish()
    whole = len(HEADER) + len(b"data")
    assert wire.written == [
        b"HPUB s.x _INBOX.p.1 %d %d\r\n%bdata\r\n" % (len(HEADER), whole, HEADER)
    ]


def test_an_acknowledgement_ends_it_and_a_later_one_is_ignored(wire: Wire) -> None:
    wire.publish()
    assert wire.publisher.outstanding == 1
    wire.answer(STORED)
    wire.answer(REPEAT)  # of a copy that was sent again
    assert wire.results == [(None, False)]
    assert (wire.publisher.outstanding, wire.publisher.duplicates) == (0, 0)


def test_a_repeat_is_a_success(wire: Wire) -> None:
    wire.publish()
    wire.answer(REPEAT)
    assert wire.results == [(None, True)]
    assert wire.publisher.duplicates == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (10054, PayloadTooLarge),
        (10071, WrongRevision),
        (10164, WrongRevision),
        (10060, PublishError),
    ],
)
def test_a_refusal_for_good_is_an_error(wire: Wire, code: int, kind: type[Exception]) -> None:
    wire.publish()
    wire.answer(refusal(code, "no"))
    assert type(wire.error) is kind
    assert str(wire.error) == f"the stream refuses a message for s.x: no ({code})"
    wire.wait(1_000)
    assert len(wire.written) == 1


# --- again ----------------------------------------------------------------------------------------


def test_without_an_answer_the_same_bytes_go_out_again(wire: Wire) -> None:
    wire.publish()
    wire.wait(ACK_TIMEOUT - 0.1)
    assert len(wire.written) == 1
    wire.wait(0.1)
    wire.wait(ACK_TIMEOUT)
    assert wire.written == [wire.written[0]] * 3
    assert wire.publisher.resent == 2
    assert wire.publisher.trouble is None
    wire.answer(STORED)
    assert wire.results == [(None, False)]


def test_a_full_stream_is_asked_for_ever(wire: Wire) -> None:
    """Thousands of refusals: the waits grow to their bound and no further."""
    wire.publish()
    for count in range(5_000):
        wire.answer(FULL)
        assert wire.publisher.trouble is not None
        assert len(wire.written) == count + 1
        wire.wait(RETRY.maximum)
    assert "the stream of s.x is full (maximum messages exceeded)" in wire.publisher.trouble
    assert wire.results == []
    wire.answer(STORED)
    assert wire.results == [(None, False)]
    assert wire.publisher.trouble is None


def test_the_waits_for_a_full_stream_grow(wire: Wire) -> None:
    wire.publish()
    waits = []
    for _ in range(6):
        wire.answer(FULL)
        sent, began = len(wire.written), wire.now
        while len(wire.written) == sent:
            wire.wait(0.125)
        waits.append(wire.now - began)
    assert waits == [0.25, 0.5, 1.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "no stream takes s.x"),
        (refusal(10074, "insufficient resources", 503), "takes nothing now"),
        (refusal(99999, "who knows", 503), "takes nothing now (who knows)"),
    ],
)
def test_what_passes_by_itself_is_waited_out(wire: Wire, answer: bytes, reason: str) -> None:
    wire.publish()
    wire.answer(answer)
    assert reason in (wire.publisher.trouble or "")
    wire.wait(RETRY.delay(1))
    assert len(wire.written) == 2
    wire.answer(STORED, 1)
    assert wire.results == [(None, False)]


def test_a_copy_that_is_on_its_way_is_no_trouble(wire: Wire) -> None:
    wire.publish()
    wire.answer(refusal(10158, "duplicate message id is in process", 409))
    assert wire.publisher.trouble is None
    wire.wait(RETRY.delay(1))
    wire.answer(REPEAT)
    assert wire.results == [(None, True)]


def test_the_time_of_a_caller_is_limited(wire: Wire) -> None:
    wire.publish(timeout=10.0)
    wire.answer(FULL)
    wire.wait(9.9)
    assert wire.results == []
    wire.wait(0.1)
    assert isinstance(wire.error, PublishTimeout)
    assert str(wire.error) == (
        "s.x: the stream of s.x is full (maximum messages exceeded); it may be stored: publish it "
        "again under the same id"
    )
    assert wire.publisher.trouble is None  # nothing is left that could show its end


# --- the connection -------------------------------------------------------------------------------


def test_while_it_is_away_nothing_is_written(wire: Wire) -> None:
    wire.publish()
    wire.connected = False
    wire.publish()
    wire.wait(ACK_TIMEOUT)
    assert len(wire.written) == 1
    wire.connected = True
    wire.publisher.on_reconnect()
    numbers = [data.split(b" ")[2] for data in wire.written]
    assert numbers == [b"_INBOX.p.1", b"_INBOX.p.1", b"_INBOX.p.2"]
    wire.answer(STORED, 2)
    wire.answer(REPEAT, 1)
    assert wire.results == [(None, False), (None, True)]


def test_what_was_answered_is_not_sent_again_after_a_reconnect(wire: Wire) -> None:
    wire.publish()
    wire.answer(STORED)
    wire.publisher.on_reconnect()
    assert len(wire.written) == 1


def test_who_has_a_limit_is_told_of_a_denial_at_once(wire: Wire) -> None:
    wire.publish(b"s.Denied", timeout=10.0)
    wire.publish(b"s.denied", timeout=None)
    wire.publish(b"s.other", timeout=10.0)
    text = 'permissions violation for publish to "s.denied"'
    wire.publisher.on_denied(text)
    assert isinstance(wire.error, PermissionDenied)
    assert wire.publisher.outstanding == 2
    assert wire.publisher.trouble == text


def test_a_closed_connection_ends_all(wire: Wire) -> None:
    wire.publish()
    wire.publish()
    wire.publisher.fail_all(PublishError("closed"))
    assert [str(error) for error, _ in wire.results] == ["closed"] * 2
    assert wire.publisher.outstanding == 0


# --- room -----------------------------------------------------------------------------------------


async def test_room_comes_back_with_the_acknowledgements(wire: Wire) -> None:
    for _ in range(MAX_OUTSTANDING - 1):
        wire.publish()
    assert not wire.publisher.full
    wire.publish()
    assert wire.publisher.full
    waiting = asyncio.create_task(wire.publisher.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    wire.answer(STORED, 7)
    await waiting
    assert not wire.publisher.full


def test_bytes_take_room_too(wire: Wire) -> None:
    wire.publisher.max_payload = MAX_OUTSTANDING_BYTES
    payload = bytes(MAX_OUTSTANDING_BYTES - len(HEADER))
    wire.publisher.publish(b"s.x", HEADER, payload, lambda *_: None, None)
    assert wire.publisher.full
    wire.answer(STORED)
    assert not wire.publisher.full


def test_more_than_the_server_takes_is_refused_here(wire: Wire) -> None:
    wire.publisher.max_payload = len(HEADER) + 3
    wire.publish()
    assert isinstance(wire.error, PayloadTooLarge)
    assert "carry the bytes as a Blob with a path" in str(wire.error)
    assert wire.written == []


# --- whatever happens -----------------------------------------------------------------------------

ANSWERS = (
    b'{"stream":"s","seq":1}',
    b'{"stream":"s","seq":1,"duplicate":true}',
    b'{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"}}',
    b'{"error":{"code":400,"err_code":10071,"description":"wrong last sequence"}}',
    b'{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum"}}',
    b"",
    b"garbage",
    b"[1]",
    b'{"error":"odd"}',
    b'{"error":{"code":"x","err_code":null}}',
    b'{"error":{"err_code":[1]}}',
    b"[" * 100_000 + b'"error"',
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["publish", "forever", "ack", "time", "down", "up", "deny"]),
            st.integers(0, 30),
            st.sampled_from(ANSWERS),
        ),
        max_size=80,
    )
)
def test_every_publish_is_done_exactly_once(steps: list[tuple[str, int, bytes]]) -> None:
    now, connected, written = 0.0, True, []
    publisher = Publisher("_INBOX.p", written.append, lambda: connected, lambda: now)
    calls: Counter[int] = Counter()
    count = 0
    for step, number, answer in steps:
        if step in ("publish", "forever"):
            timeout = 10.0 if step == "publish" else None

            def done(_error: Exception | None, _repeat: bool, which: int = count) -> None:
                calls[which] += 1

            publisher.publish(b"s.x", header_block({}), b"data", done, timeout)
            count += 1
        elif step == "ack":  # also for numbers that are done, or were never used
            publisher.on_ack(b"_INBOX.p.%d" % (number % (count + 2)), b"", answer, None)
        elif step == "time":
            now += number
            publisher.tick(now)
        elif step == "deny":
            publisher.on_denied('permissions violation for publish to "s.x"')
        else:
            connected = step == "up"
            if connected:
                publisher.on_reconnect()
        assert publisher.outstanding == count - calls.total()
    publisher.on_ack(b"_INBOX.p.no-number", b"", b"", None)
    connected, now = True, now + ACK_TIMEOUT
    publisher.tick(now)
    for number in range(1, count + 1):
        publisher.on_ack(b"_INBOX.p.%d" % number, b"", ANSWERS[0], None)
    assert publisher.outstanding == 0
    assert not publisher.full
    assert publisher._bytes == 0
    assert calls == Counter(range(count))


def test_a_subject_that_the_server_cannot_take_is_refused() -> None:
    written: list[bytes] = []
    publisher = Publisher("_INBOX.p", written.append, lambda: True, lambda: 0.0)
    errors: list[Exception | None] = []
    publisher.publish(b"s" * (MAX_SUBJECT + 1), b"", b"", lambda e, _: errors.append(e), None)
    (error,) = errors
    with pytest.raises(PayloadTooLarge, match=r"the value of a key must be shorter"):
        raise error or AssertionError
    assert written == []
    assert publisher.outstanding == 0


# --- a real server --------------------------------------------------------------------------------


async def test_a_stream_that_is_not_there_yet_and_one_that_is_full(nats: Settings) -> None:
    async with JetStream(nats, name="test") as broker:
        early = asyncio.create_task(publish_stored(broker, "s.x", HEADER, b"1"))
        await until(lambda: "no stream takes s.x" in (broker.blocked or ""), "the reason")
        spec = StreamSpec(name="s", subjects=("s.>",), max_bytes=100_000)
        await broker.ensure_stream(spec)
        assert not await early
        assert broker.blocked is None
        assert await publish_stored(broker, "s.x", HEADER, b"1")  # a repeat

        large = bytes(60_000)
        await publish_stored(broker, "s.x", header_block({}), large)
        late = asyncio.create_task(publish_stored(broker, "s.x", header_block({}), large))
        await until(lambda: "is full" in (broker.blocked or ""), "the reason")
        await broker.client.api("$JS.API.STREAM.PURGE.s")
        assert not await late
        assert broker.blocked is None


async def test_a_condition_that_does_not_hold(nats: Settings) -> None:
    async with JetStream(nats, name="test") as broker:
        await broker.ensure_stream(StreamSpec(name="s", subjects=("s.>",)))
        condition = header_block({"Nats-Expected-Last-Subject-Sequence": "7"})
        with pytest.raises(WrongRevision, match="wrong last sequence"):
            await publish_stored(broker, "s.x", condition, b"1")
