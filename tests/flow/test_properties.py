"""Properties of what keeps account: identities, headers, slots, pulls, publishes, backoff."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mqinfer.adapters.publisher import ACK_TIMEOUT, MAX_SUBJECT, Publisher
from mqinfer.adapters.pull import ContinuousPull
from mqinfer.errors import PayloadTooLarge
from mqinfer.flow.slots import Slots
from mqinfer.identity import (
    MAX_ANCESTORS,
    MAX_ID,
    extend_ancestors,
    format_models,
    header_block,
    last_header,
    output_id,
    parse_ancestors,
    parse_header_block,
    parse_models,
    parse_status,
    safe_id,
)
from mqinfer.message import key_token

anything = st.text(st.characters(), max_size=40)  # lone surrogates as well
ids = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)
parts = st.tuples(ids, ids, st.none() | ids, st.integers(0, 10**9))

# --- identity -------------------------------------------------------------------------------------


@given(parts, parts)
def test_output_ids_are_stable_and_differ(one: Any, other: Any) -> None:
    assert re.fullmatch("[0-9a-f]{32}", output_id(*one))
    assert output_id(*one) == output_id(*one)
    assert (output_id(*one) == output_id(*other)) == (one == other)


@given(anything, anything)
def test_safe_ids_fit_headers_and_stay_different(one: str, other: str) -> None:
    safe = safe_id(one)
    assert safe_id(safe) == safe
    assert len(safe) <= 2 * MAX_ID
    if one:
        assert parse_ancestors(safe) == (safe,)
        assert parse_header_block(header_block({"Mq-Id": safe})) == {"Mq-Id": safe}
    assert (safe == safe_id(other)) == (one == other)


@given(st.lists(anything, max_size=60))
def test_ancestors_are_bounded_whatever_was_sent(names: list[str]) -> None:
    chain = parse_ancestors(" ".join(names))
    assert len(chain) <= MAX_ANCESTORS
    longer = extend_ancestors(chain, "parent")
    assert len(longer) <= MAX_ANCESTORS
    assert longer[-1] == "parent"
    assert longer[:1] == (chain or ("parent",))[:1]
    assert parse_ancestors(" ".join(longer)) == longer


@given(anything)
def test_models_survive_what_was_sent(text: str) -> None:
    models = parse_models(text)
    assert parse_models(format_models(models)) == models


# --- headers --------------------------------------------------------------------------------------

names = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=":"), min_size=1
)


@given(st.dictionaries(names, st.text(st.characters(exclude_categories=["Cs"]))))
def test_headers_come_back(pairs: dict[str, str]) -> None:
    found = parse_header_block(header_block(pairs))
    # Bytes.strip and line ends: what NATS itself takes away.
    expected = {
        name: re.sub("[\r\n]", " ", value).encode().strip().decode()
        for name, value in pairs.items()
    }
    assert found == expected


@given(st.dictionaries(anything, anything))
def test_no_pair_can_add_another(pairs: dict[str, str]) -> None:
    block = header_block(pairs)
    assert block.startswith(b"NATS/1.0\r\n")
    assert block.endswith(b"\r\n\r\n")
    assert block.count(b"\r\n") <= len(pairs) + 2
    assert len(parse_header_block(block)) <= len(pairs)


@given(st.binary(max_size=300) | st.binary(max_size=99).map(lambda raw: b"NATS/1.0\r\n" + raw))
def test_any_bytes_are_parsed_and_can_be_sent_again(block: bytes) -> None:
    pairs = parse_header_block(block)
    header_block(pairs)
    code, _ = parse_status(block)
    assert code >= 0
    assert all(last_header(block, name) is not None for name in ("Nats-Subject", *pairs))


@pytest.mark.parametrize(
    ("block", "status"),
    [
        (b"NATS/1.0 409 Consumer Deleted\r\n\r\n", (409, "Consumer Deleted")),
        (b"NATS/1.0 503\r\n\r\n", (503, "")),
        (b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 3\r\n\r\n", (204, "EOB")),
        (b"NATS/1.0\r\nNats-Msg-Id: 409 x\r\n\r\n", (0, "")),
        (b"", (0, "")),
    ],
)
def test_a_status_is_told_from_a_message(block: bytes, status: tuple[int, str]) -> None:
    assert parse_status(block) == status


def test_what_the_server_added_is_not_what_a_publisher_called_the_same() -> None:
    block = header_block({"Nats-Subject": "forged"})[:-2] + b"Nats-Subject: true\r\n\r\n"
    assert parse_header_block(block) == {"Nats-Subject": "forged"}
    assert last_header(block, "Nats-Subject") == "true"
    assert last_header(block, "Nats-Stream") == ""


# --- keys -----------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=["Cs"])) | st.integers() | st.floats())
def test_a_key_is_one_token(value: object) -> None:
    token = key_token(value)
    assert re.fullmatch(r"[^\s.*>\x00-\x20\x7f]+", token)
    assert token.isascii()


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_keys_can_be_read_back(text: str) -> None:
    from urllib.parse import unquote

    assert unquote(key_token(text)) == text


# --- slots ----------------------------------------------------------------------------------------


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


# --- pulls ----------------------------------------------------------------------------------------


class Server:
    """The requests of one consumer as nats-server keeps them: first come, first served."""

    def __init__(self) -> None:
        self.slots = Slots(20, 100_000, 1_000)
        self.open: dict[int, list[int]] = {}
        self.sequence = 0
        self.held: list[int] = []
        self.now = 0.0
        self.pull = ContinuousPull(
            "_INBOX.x",
            "$JS.API.CONSUMER.MSG.NEXT.s.c",
            self._written,
            lambda: self.now,
            on_message=self._arrived,
            on_released=self.slots.withdraw,
            recreate=self._recreate,
        )

    async def _recreate(self) -> None:
        return None

    def _written(self, data: bytes) -> None:
        line, body, _ = data.split(b"\r\n")
        token = int(line.split()[2].rpartition(b".")[2])
        asked = json.loads(body)
        self.open[token] = [asked["batch"], asked["max_bytes"]]

    def _arrived(self, delivery: Any) -> None:
        self.held.append(delivery.size)
        self.slots.arrive(delivery.size)

    def ask(self, number: int) -> None:
        """A part of what may be asked for, so that several requests are open."""
        if wanted := self.slots.available():
            part = (1 + number % min(wanted[0], 6), min(wanted[1], 1_000 + number))
            self.slots.ask(*part)
            self.pull.request(*part)

    def deliver(self, which: int, size: int) -> None:
        """A message for one of the requests; the server's order is its own."""
        token = list(self.open)[which % len(self.open)]
        self.sequence += 1
        reply = b"$JS.ACK.s.c.1.%d.%d.1700000000000000000.0" % (self.sequence, self.sequence)
        subject = b"s.x"
        # The server counts as we do: subject, reply, headers, payload.
        payload = b"x" * size
        left = self.open[token]
        total = len(subject) + len(reply) + len(payload)
        if total > left[1]:
            self.status(which, b"409 Message Size Exceeds MaxBytes")
            return
        left[0] -= 1
        left[1] -= total
        if not left[0]:
            del self.open[token]
        self.pull.on_raw(subject, reply, payload, None)

    def status(self, which: int, text: bytes) -> None:
        """A status for one of the requests; all but the heartbeat end it."""
        token = list(self.open)[which % len(self.open)]
        block = b"NATS/1.0 " + text
        if not text.startswith(b"100"):
            left = self.open.pop(token)
            block += b"\r\nNats-Pending-Messages: %d\r\nNats-Pending-Bytes: %d" % (*left,)
        self.pull.on_raw(b"_INBOX.x.%d" % token, b"", b"", block + b"\r\n\r\n")
        if b"Shutdown" in text or b"Leadership" in text:
            self.open.clear()


STATUSES = (
    b"100 Idle Heartbeat",
    b"408 Request Timeout",
    b"409 Batch Completed",
    b"409 Message Size Exceeds MaxBytes",
    b"409 Exceeded MaxWaiting",
    b"409 Consumer Deleted",
    b"409 Server Shutdown",
    b"409 Leadership Change",
    b"503",
)


STEPS = ("ask", "message", "message", "status", "release") * 9 + ("reset",)


@pytest.mark.parametrize("block", range(10))
def test_a_pull_keeps_account_with_the_server(block: int) -> None:
    """Long random walks: what goes wrong takes several requests that overlap."""
    for seed in range(100 * block, 100 * block + 100):
        rng = random.Random(seed)
        server = Server()
        slots = server.slots
        for _ in range(80):
            step, number = rng.choice(STEPS), rng.randrange(1_000)
            if step == "ask":
                server.ask(number)
            elif step == "message" and server.open:
                server.deliver(number, number % 900)
            elif step == "status" and server.open:
                server.status(number, rng.choice(STATUSES))
            elif step == "release" and server.held:
                slots.release(server.held.pop())
            elif step == "reset":  # the connection was lost, and with it the requests
                server.open.clear()
                server.pull.reset("reconnected")
            # What may still come is what the account says may come.
            assert slots.asked == sum(left[0] for left in server.open.values()), seed
            assert 0 <= slots.in_flight + slots.asked <= slots.max_messages, seed
        while server.open:
            server.status(0, b"408 Request Timeout")
        assert (slots.asked, slots.bytes_asked) == (0, 0), seed


def test_a_status_without_a_count_refuses_the_whole_request() -> None:
    server = Server()
    server.ask(3)
    server.ask(1)
    assert server.slots.asked == 6
    server.deliver(1, 10)  # believed to be the first request's
    del server.open[1]
    server.pull.on_raw(b"_INBOX.x.1", b"", b"", b"NATS/1.0 409 Exceeded MaxWaiting\r\n\r\n")
    assert server.slots.asked == 1
    server.deliver(0, 10)
    assert (server.slots.asked, server.slots.bytes_asked) == (0, 0)


# --- publishes ------------------------------------------------------------------------------------

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


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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
