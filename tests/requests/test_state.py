"""The state of a request, by itself: whoever is first decides, and an end never changes."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.completion.assemble import Died, Found, Tale
from mqinfer.completion.progress import CHANGED, COMPLETE, LATE, TOO_MANY
from mqinfer.completion.record import Payload
from mqinfer.requests import places
from mqinfer.requests import state as states
from mqinfer.requests.kept import end_request
from mqinfer.requests.seen import MEMORY, Seen
from mqinfer.requests.state import Answer, Asked, Body, End, Problem, State
from mqinfer.requests.tracking import LOST, again_at
from tests.support.bucket import Memory

ID = "grade-" + "0" * 32
KINDS = st.sampled_from(["rejected", "decode", "failed", "timeout", "killed"])
TEXT = st.text(max_size=8)
BODIES = st.integers().map(lambda n: Body.of(b"%d" % n, ""))
ANSWERS = st.builds(Answer, st.uuids().map(str), st.just("grade"), BODIES)
ENDS = st.builds(
    End,
    st.sampled_from(["succeeded", "partial", "failed", "canceled", "expired"]),
    st.lists(ANSWERS, max_size=3).map(tuple),
    st.lists(st.builds(Problem, st.just("internal"), TEXT, TEXT), max_size=2).map(tuple),
)


def opened(created: float = 1.0) -> State:
    asked = Asked("plants.photo", Body.of(b'{"n":1}', "application/json"))
    return State(ID, "grade", created, created + 10, created + 20, 10.0, "f", asked=asked)


class Racing(Memory):
    """A bucket between whose reads and writes others have their turn."""

    async def load(self, key: str) -> tuple[bytes, int] | None:
        await asyncio.sleep(0)
        found = await super().load(key)
        await asyncio.sleep(0)
        return found

    async def save(
        self, key: str, value: bytes, revision: int, *, ttl: float | None = None
    ) -> bool:
        assert ttl is not None
        assert ttl > 0
        await asyncio.sleep(0)
        saved = await super().save(key, value, revision)
        if saved:
            self.history.append(states.decode(value))
        return saved

    history: list[State]


@given(ENDS, st.booleans(), st.booleans())
def test_what_was_seen_of_a_request_spares_reading_it_and_never_undoes_anything(
    end: End, ended: bool, again: bool
) -> None:
    bucket, seen = Memory(), Seen()
    before = opened()
    root, key = places.root_of(before.id, before.created), places.key_of(ID)
    there = states.ended(before, End("canceled"), 3.0) if ended else before
    # The key may have been used again since: then it is another request.
    if again:
        there = opened(created=2.0)
    bucket.values[key] = states.encode(there), 2 if ended or again else 1
    seen.add(before, states.encode(before), 1)
    known = seen.take(root)
    assert list(known) == [key]
    found = asyncio.run(end_request(bucket, ID, root, end, lambda: 5.0, known))
    kept = states.decode(bucket.values[key][0])
    assert found == kept
    if ended or again:
        assert kept == there
    else:
        assert kept.status == end.status
    assert seen.take(root) == {}
    assert len(seen) == 0


def test_what_was_seen_longest_ago_is_let_go() -> None:
    seen = Seen()
    for created in range(100):
        seen.add(opened(float(created)), bytes(MEMORY // 50), 1)
    assert len(seen) <= MEMORY
    assert seen.take(places.root_of(ID, 0.0)) == {}
    assert seen.take(places.root_of(ID, 99.0)) != {}
    seen.add(opened(99.0), b"", 1)
    seen.add(states.ended(opened(99.0), End("succeeded"), 3.0), b"", 2)
    assert seen.take(places.root_of(ID, 99.0)) == {}


@given(st.lists(ENDS, min_size=1, max_size=5), st.integers())
def test_of_several_ends_at_once_one_is_the_end(ends: list[End], seed: int) -> None:
    async def race() -> None:
        bucket = Racing()
        bucket.history = []
        before = opened()
        root = places.root_of(before.id, before.created)
        bucket.values[places.key_of(ID)] = (states.encode(before), 1)
        turns = random.Random(seed)

        async def one(end: End) -> State | None:
            for _ in range(turns.randint(0, 4)):
                await asyncio.sleep(0)
            return await end_request(bucket, ID, root, end, lambda: 5.0)

        told = await asyncio.gather(*map(one, ends))
        assert len(bucket.history) == 1  # it was written once
        (end,) = bucket.history
        assert all(one == end for one in told)  # and all are told the same
        assert (end.asked, end.ended, end.expires) == (None, 5.0, 15.0)
        assert End(end.status, end.answers, end.errors) in ends

    asyncio.run(race())


@given(ENDS)
def test_what_began_later_under_the_same_id_is_another_request(end: End) -> None:
    async def late() -> None:
        bucket = Racing()
        bucket.history = []
        bucket.values[places.key_of(ID)] = (states.encode(opened(2.0)), 1)
        found = await end_request(bucket, ID, places.root_of(ID, 1.0), end, lambda: 5.0)
        assert found == opened(2.0)
        assert bucket.history == []
        assert await end_request(Racing(), ID, places.root_of(ID, 1.0), end, lambda: 5.0) is None

    asyncio.run(late())


@given(st.lists(st.binary(max_size=4), max_size=4), st.lists(KINDS, max_size=4), TEXT)
def test_what_came_of_it_says_how_it_ends(
    outputs: list[bytes], kinds: list[str], reason: str
) -> None:
    payloads = [msgspec.json.encode(one) for one in outputs]

    def told(how: str, *more: str) -> Tale:
        found = tuple(Found(str(i), "grade", Payload(one)) for i, one in enumerate(payloads))
        died = tuple(Died("s", str(i), kind, reason) for i, kind in enumerate((*kinds, *more)))
        return Tale("r", None, None, found, died, how, {}, "m=1")

    end = states.end_of(told(COMPLETE))
    expected = "succeeded" if not kinds else "partial" if outputs else "failed"
    assert end.status == expected
    assert [one.body.payload for one in end.answers] == payloads
    assert len(end.errors) == len(kinds)
    for kind, error in zip(kinds, end.errors, strict=True):
        if kind in ("rejected", "decode"):
            assert (error.reason, error.letter) == (reason, "")
        else:  # nothing of what happened inside leaves
            assert (error.kind, error.reason) == ("internal", states.INTERNAL)
            assert error.letter.startswith("s/")
    assert states.end_of(told(LATE)).status == "expired"
    assert states.end_of(told(COMPLETE, "expired")).status == "expired"
    assert states.end_of(told(COMPLETE, "canceled")).status == "canceled"
    for how in (TOO_MANY, CHANGED):
        short = states.end_of(told(how))
        assert short.status == ("partial" if outputs else "failed")
        assert short.errors[-1].reason == states.SHORT[how]


@given(st.text(), st.text(), st.text(), st.text())
def test_ids_of_keys(key: str, tenant: str, other: str, secret: str) -> None:
    one = places.keyed_id("grade", key, tenant, secret)
    assert one == places.keyed_id("grade", key, tenant, secret)
    assert places.parts(one) is not None
    assert (one == places.keyed_id("grade", other, tenant, secret)) is (key == other)
    assert (one == places.keyed_id("grade", key, other, secret)) is (tenant == other)
    assert (one == places.keyed_id("grade", key, tenant, other)) is (secret == other)
    message = places.message_id(one, 1.5)
    assert places.asked_by(message) == one
    assert places.root_of(one, 1.5).token in message
    assert places.root_of(one, 1.5) != places.root_of(one, 1.75)


@given(st.binary(max_size=30), st.sampled_from(["application/msgpack", "text/plain"]))
def test_a_payload_is_kept_as_it_is(payload: bytes, content_type: str) -> None:
    for body in (Body.of(payload, content_type), Body.of(msgspec.json.encode(payload), "")):
        answer = Answer("1", "grade", body)
        kept = states.decode_answers(states.encode_answers((answer,)))
        assert kept[0].body.payload == body.payload


@given(ENDS, st.floats(0, 1e4), st.floats(0, 1e4))
def test_no_state_is_dropped_before_those_that_it_replaces(
    end: End, later: float, much_later: float
) -> None:
    # Else nats-server, killed in between, has the one before again.
    first = opened()
    second = states.ended(first, end, 1.0 + later)
    third = states.forgotten(second, 1.0 + later + much_later)
    moments = (1.0, 1.0 + later, 1.0 + later + much_later)
    goes = [
        now + states.lives(state, now)
        for now, state in zip(moments, (first, second, third), strict=True)
    ]
    assert all(before <= after + 1e-6 for before, after in pairwise(goes))


def test_what_may_be_lost_is_published_again_in_time_for_an_answer() -> None:
    for lasts, after in ((3600.0, LOST), (10.0, LOST), (4.0, 2.0), (0.5, 0.25)):
        state = msgspec.structs.replace(opened(100.0), deadline=100.0 + lasts)
        assert again_at(state) == 100.0 + after
